// What the kernels for training with AMX have in common: tiles, products of 16 pixels, gradients of weights. Features are
// (N, H, W, 64), dense, in bfloat16, H and W from 16 up. Products are summed in float32, and so are gradients of weights.
#pragma once
#include <immintrin.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>
#include <algorithm>
typedef uint16_t bf;
typedef __m512i V;
static inline bf down(float f) { uint32_t u; memcpy(&u, &f, 4); u += 0x7fff + ((u >> 16) & 1); return u >> 16; }

struct alignas(64) TileCfg { uint8_t palette = 1, start = 0, r[14] = {0}; uint16_t colsb[16] = {0}; uint8_t rows[16] = {0}; };
static void tiles_on() {
    TileCfg c;
    for (int i = 0; i < 8; i++) { c.colsb[i] = 64; c.rows[i] = 16; }
    _tile_loadconfig(&c);
}

// Room that grows, on large pages, zeroed when made: what is multiplied by zeros has to be finite.
struct Buf {
    char* p = nullptr; size_t n = 0;
    Buf() = default;
    Buf(const Buf&) = delete;
    ~Buf() { free(p); }
    template <class T> T* get(size_t count) {
        size_t need = count * sizeof(T) + 256;
        if (need > n) { free(p); need = (need + (1 << 21) - 1) >> 21 << 21; p = (char*)aligned_alloc(1 << 21, need); madvise(p, need, MADV_HUGEPAGE); memset(p, 0, need); n = need; }
        return (T*)p;
    }
};
// Packed (64, 64) weights, and room, at multiples of 64 bytes.
struct Room {
    std::vector<bf> values;
    Room(size_t n) : values(n + 64) {}
    bf* at() { return (bf*)(((uintptr_t)values.data() + 63) / 64 * 64); }
};

// W[k][n] (k of 32*kb, n of 16*nb) -> tiles [kb][nb][16][16][2]
template <class F> static void pack(bf* out, int K, int N, F w) {
    for (int kb = 0; kb < K / 32; kb++) for (int nb = 0; nb < N / 16; nb++) for (int r = 0; r < 16; r++)
        for (int n = 0; n < 16; n++) for (int s = 0; s < 2; s++) *out++ = down(w(kb * 32 + r * 2 + s, nb * 16 + n));
}
static inline V cvt2(__m512 lo, __m512 hi) { return (V)_mm512_cvtne2ps_pbh(hi, lo); }
static inline __m512 lo_f(V v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(v)), 16)); }
static inline __m512 hi_f(V v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(v, 1)), 16)); }
// 32 values of a product, rounded, with those at `more` (may be null) added before
static inline void put(bf* to, const float* q, const bf* more) {
    __m512 lo = _mm512_load_ps(q), hi = _mm512_load_ps(q + 16);
    if (more) { V u = _mm512_loadu_si512(more); lo = _mm512_add_ps(lo, lo_f(u)); hi = _mm512_add_ps(hi, hi_f(u)); }
    _mm512_storeu_si512(to, cvt2(lo, hi));
}

// 16 pixels x 64 -> 64 in float scratch s[16][64]; bias may be null; the two halves of the channels lie at x and x2
template <class M> static inline void gemm(const bf* x, const bf* x2, int stride, const bf* w, const float* bias, float* s, M mid) {
    if (bias) { _tile_loadd(0, bias, 0); _tile_loadd(1, bias + 16, 0); _tile_loadd(2, bias + 32, 0); _tile_loadd(3, bias + 48, 0); }
    else { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); }
    _tile_loadd(4, x, stride); _tile_loadd(6, w, 64); _tile_loadd(7, w + 512, 64);
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
    mid(0);
    _tile_loadd(6, w + 1024, 64); _tile_loadd(7, w + 1536, 64);
    _tile_dpbf16ps(2, 4, 6); _tile_dpbf16ps(3, 4, 7);
    mid(1);
    _tile_loadd(5, x2, stride); _tile_loadd(6, w + 2048, 64); _tile_loadd(7, w + 2560, 64);
    _tile_dpbf16ps(0, 5, 6); _tile_dpbf16ps(1, 5, 7);
    mid(2);
    _tile_loadd(6, w + 3072, 64); _tile_loadd(7, w + 3584, 64);
    _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    mid(3);
    _tile_stored(0, s, 256); _tile_stored(1, s + 16, 256); _tile_stored(2, s + 32, 256); _tile_stored(3, s + 48, 256);
}
// 16 pixels, `stride` apart, of n inputs: bias (may be null) plus the sum of their products, in float scratch t[16][64];
// x(j) is where the j-th begins
template <class X, class M> static inline void products(int n, X x, int stride, const bf* packed, const float* bias, float* t, M mid) {
    if (bias) { _tile_loadd(0, bias, 0); _tile_loadd(1, bias + 16, 0); _tile_loadd(2, bias + 32, 0); _tile_loadd(3, bias + 48, 0); }
    else { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); }
    for (int j = 0; j < n; j++) for (int k = 0; k < 2; k++) {
        const bf* q = packed + j * 4096 + k * 2048;
        _tile_loadd(4, x(j) + 32 * k, stride * 2); _tile_loadd(6, q, 64); _tile_loadd(7, q + 512, 64);
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
        if (!j) mid(2 * k);
        _tile_loadd(6, q + 1024, 64); _tile_loadd(7, q + 1536, 64);
        _tile_dpbf16ps(2, 4, 6); _tile_dpbf16ps(3, 4, 7);
        if (!j) mid(2 * k + 1);
    }
    _tile_stored(0, t, 256); _tile_stored(1, t + 16, 256); _tile_stored(2, t + 32, 256); _tile_stored(3, t + 48, 256);
}
static int starts(int W, int* xs) { int n = 0; for (int x = 0; x + 16 <= W; x += 16) xs[n++] = x; if (W % 16) xs[n++] = W - 16; return n; }
// Tiles are stored a step before they are read, and what is done with them is mixed into the next ones' products:
// finish(i, first pixel, last + 1, t) is called four pixels at a time.
template <class C, class F> static inline void pipelined(int n, int pixels, float* t, C compute, F finish) {
    compute(0, t, [](int) {});
    for (int i = 1; i < n; i++) {
        const float* last = t + (~i & 1) * 1024;
        compute(i, t + (i & 1) * 1024, [&](int k) __attribute__((always_inline)) { finish(i - 1, 4 * k, 4 * k + 4, last); });
    }
    finish(n - 1, 0, pixels, t + (~n & 1) * 1024);
}

static inline void transpose16(V* r) {
    V t[16];
    for (int i = 0; i < 8; i++) { t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]); t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]); }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]); r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]); r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88); t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88); t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88); r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd); r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}
// Channels of 32 come in this order, which spares shuffles: ORDER[i] is the channel at i.
static int order(int i) { return (i % 16) / 4 * 8 + i / 16 * 4 + i % 4; }
static inline void pairs(const bf* p, const bf* q, V& lo, V& hi) {
    V a = p ? _mm512_loadu_si512(p) : _mm512_setzero_si512(), b = q ? _mm512_loadu_si512(q) : _mm512_setzero_si512();
    lo = _mm512_unpacklo_epi16(a, b); hi = _mm512_unpackhi_epi16(a, b);
}
// 32 pixels (valid of them) x 32 channels, pixel stride ps elements -> dst[ch * cs + pixel]
static void transposed(const bf* src, int ps, int valid, bf* dst, size_t cs) {
    V lo[16], hi[16];
    if (valid == 32) for (int i = 0; i < 16; i++) pairs(src + 2 * i * ps, src + (2 * i + 1) * ps, lo[i], hi[i]);
    else for (int i = 0; i < 16; i++)
        pairs(2 * i < valid ? src + 2 * i * ps : nullptr, 2 * i + 1 < valid ? src + (2 * i + 1) * ps : nullptr, lo[i], hi[i]);
    transpose16(lo); transpose16(hi);
    for (int i = 0; i < 16; i++) { _mm512_storeu_si512(dst + i * cs, lo[i]); _mm512_storeu_si512(dst + (i + 16) * cs, hi[i]); }
}
// 32 pixels x 32 channels -> dst[pair][16][2] for the first 16 channels, at + half the rest; sums of pixels into acc[2]
static inline void paired(const bf* src, int ps, int valid, bf* dst, size_t half, __m512* acc) {
    const __m512bh one = (__m512bh)_mm512_set1_epi16(0x3f80);
    for (int i = 0; i < 16; i++) {
        V lo, hi;
        if (valid == 32) pairs(src + 2 * i * ps, src + (2 * i + 1) * ps, lo, hi);
        else pairs(2 * i < valid ? src + 2 * i * ps : nullptr, 2 * i + 1 < valid ? src + (2 * i + 1) * ps : nullptr, lo, hi);
        _mm512_storeu_si512(dst + i * 32, lo); _mm512_storeu_si512(dst + half + i * 32, hi);
        acc[0] = _mm512_dpbf16_ps(acc[0], (__m512bh)lo, one); acc[1] = _mm512_dpbf16_ps(acc[1], (__m512bh)hi, one);
    }
}

// dst[2 tiles of rows][2 tiles of cols] (row stride rs floats) += A[32 rows, stride cs][k] * B[k pairs][..]; kt steps of 32 pixels
static inline void outer_begin(float* dst, int rs) {
    _tile_loadd(0, dst, rs * 4); _tile_loadd(1, dst + 16, rs * 4); _tile_loadd(2, dst + 16 * rs, rs * 4); _tile_loadd(3, dst + 16 * rs + 16, rs * 4);
}
static inline void outer_end(float* dst, int rs) {
    _tile_stored(0, dst, rs * 4); _tile_stored(1, dst + 16, rs * 4); _tile_stored(2, dst + 16 * rs, rs * 4); _tile_stored(3, dst + 16 * rs + 16, rs * 4);
}
static inline void outer_step(const bf* a, size_t cs, const bf* b, size_t half) {
    _tile_loadd(4, a, cs * 2); _tile_loadd(6, b, 64); _tile_loadd(7, b + half, 64); _tile_loadd(5, a + 16 * cs, cs * 2);
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
}
static void acc_store(float* to, const __m512* acc, int n) { for (int i = 0; i < n; i++) _mm512_storeu_ps(to + 16 * i, _mm512_add_ps(_mm512_loadu_ps(to + 16 * i), acc[i])); }

static const int CHUNK = 128;  // pixels, whose transposed features stay in the nearest cache
static const size_t CHUNK_CS = CHUNK + 32, CHUNK_HALF = CHUNK * 16 + 32;
// dw (64, 64) += x^T g over n pixels, db (64) += sum of g; the halves of g's channels lie at g1 and g2; pixels are xs and gs
// apart; room for aT[64][CHUNK_CS] and gV[4][CHUNK_HALF]
static void outer64(const bf* x, int xs, const bf* g1, const bf* g2, int gs, int n, bf* aT, bf* gV, float* dw, float* db) {
    __m512 acc[4]; for (auto& v : acc) v = _mm512_setzero_ps();
    for (int c = 0; c < n; c += CHUNK) {
        int px = std::min(CHUNK, n - c), steps = (px + 31) / 32;
        for (int k = 0; k < steps; k++)
            for (int h = 0; h < 2; h++) {
                int valid = std::min(32, px - k * 32); size_t at = c + k * 32;
                transposed(x + at * xs + 32 * h, xs, valid, aT + 32 * h * CHUNK_CS + k * 32, CHUNK_CS);
                paired((h ? g2 : g1) + at * gs, gs, valid, gV + 2 * h * CHUNK_HALF + k * 512, CHUNK_HALF, acc + 2 * h);
            }
        for (int ci = 0; ci < 2; ci++) for (int co = 0; co < 2; co++) {
            float* part = dw + ci * 32 * 64 + co * 32;
            outer_begin(part, 64);
            for (int k = 0; k < steps; k++) outer_step(aT + ci * 32 * CHUNK_CS + k * 32, CHUNK_CS, gV + co * 2 * CHUNK_HALF + k * 512, CHUNK_HALF);
            outer_end(part, 64);
        }
    }
    acc_store(db, acc, 4);
}
