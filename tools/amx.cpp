// Blocks and fusions of an MDRN with 64 features, forward and backward, in bfloat16 by the tiles of AMX: what
// amx_training.py trains with. Features are (N, H, W, 64), dense, H and W from 16 up; halves of a block's channels lie in
// arrays of their own, framed by zeros. Products are summed in float32, and so are gradients of weights.
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
extern "C" int amx_allowed() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

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

// ---- packed weights ----
// W[k][n] (k of 32*kb, n of 16*nb) -> tiles [kb][nb][16][16][2]
template <class F> static void pack(bf* out, int K, int N, F w) {
    for (int kb = 0; kb < K / 32; kb++) for (int nb = 0; nb < N / 16; nb++) for (int r = 0; r < 16; r++)
        for (int n = 0; n < 16; n++) for (int s = 0; s < 2; s++) *out++ = down(w(kb * 32 + r * 2 + s, nb * 16 + n));
}
struct Packed {
    alignas(64) bf in[4096], out[4096], d1[9216], d2[9216], in_t[4096], out_t[4096], d1_t[9216], d2_t[9216];
    alignas(64) float b_in[64], b_d[64], b_out[64];
    // torch layouts: in (64,64), d (32,32,3,3), out (64,64), rows are outputs
    void from(const float* win, const float* bin, const float* w1, const float* b1, const float* w2, const float* b2,
              const float* wo, const float* bo, bool back) {
        pack(in, 64, 64, [&](int k, int n) { return win[n * 64 + k]; });
        pack(out, 64, 64, [&](int k, int n) { return wo[n * 64 + k]; });
        for (int t = 0; t < 9; t++) {
            pack(d1 + t * 1024, 32, 32, [&](int k, int n) { return w1[(n * 32 + k) * 9 + t]; });
            pack(d2 + t * 1024, 32, 32, [&](int k, int n) { return w2[(n * 32 + k) * 9 + t]; });
        }
        memcpy(b_in, bin, 256); memcpy(b_d, b1, 128); memcpy(b_d + 32, b2, 128); memcpy(b_out, bo, 256);
        if (!back) return;
        pack(in_t, 64, 64, [&](int k, int n) { return win[k * 64 + n]; });
        pack(out_t, 64, 64, [&](int k, int n) { return wo[k * 64 + n]; });
        for (int t = 0; t < 9; t++) {
            pack(d1_t + t * 1024, 32, 32, [&](int k, int n) { return w1[(k * 32 + n) * 9 + 8 - t]; });
            pack(d2_t + t * 1024, 32, 32, [&](int k, int n) { return w2[(k * 32 + n) * 9 + 8 - t]; });
        }
    }
};

static inline V cvt2(__m512 lo, __m512 hi) { return (V)_mm512_cvtne2ps_pbh(hi, lo); }
static inline __m512 lo_f(V v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(v)), 16)); }
static inline __m512 hi_f(V v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(v, 1)), 16)); }

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
// 2 x 16 pixels of a 3x3 dilated convolution 32 -> 32; p: padded buffer at (y, x) = top left tap; s[2][16][32]
template <class M> static inline void conv32(const bf* p0, const bf* p1, size_t row, int d, const bf* w, const float* bias, float* s, M mid) {
    if (bias) { _tile_loadd(0, bias, 0); _tile_loadd(1, bias + 16, 0); _tile_loadd(2, bias, 0); _tile_loadd(3, bias + 16, 0); }
    else { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); }
#pragma GCC unroll 9
    for (int k = 0; k < 9; k++) {
        size_t o = k / 3 * d * row + k % 3 * d * 32;
        _tile_loadd(4, p0 + o, 64); _tile_loadd(6, w, 64); _tile_loadd(7, w + 512, 64); _tile_loadd(5, p1 + o, 64);
        _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
        if (k < 8) mid(k);
        w += 1024;
    }
    _tile_stored(0, s, 128); _tile_stored(1, s + 16, 128); _tile_stored(2, s + 512, 128); _tile_stored(3, s + 528, 128);
}

struct Geo {
    int H, W; size_t px, r1, r2, n1, n2, save;  // row strides and sizes of padded halves, elements
    Geo(int H, int W) : H(H), W(W), px((size_t)H * W), r1((W + 2) * 32), r2((W + 4) * 32), n1((H + 2) * r1), n2((H + 4) * r2) {
        save = (2 * px * 64 + n1 + n2 + 31) / 32 * 32;
    }
};
struct Saved { bf *x, *y, *a1, *a2; Saved(bf* p, const Geo& g) : x(p), y(p + g.px * 64), a1(y + g.px * 64), a2(a1 + g.n1) {} };
static void zero_frame(bf* p, int H, int W, int d) {
    size_t row = (size_t)(W + 2 * d) * 32;
    memset(p, 0, row * d * 2); memset(p + row * (H + d), 0, row * d * 2);
    for (int y = d; y < H + d; y++) { memset(p + y * row, 0, d * 64); memset(p + y * row + (W + d) * 32, 0, d * 64); }
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
// max_epi16 is ReLU of bfloat16, but for negative NaNs, which it takes for 0; the sum past a block keeps them.
static void squeeze_row(const Saved& s, const Geo& g, const Packed& w, int y, const int* xs, int n, float* t) {
    const V zero = _mm512_setzero_si512();
    pipelined(n, 16, t, [&](int i, float* t, auto mid) { const bf* x = s.x + ((size_t)y * g.W + xs[i]) * 64; gemm(x, x + 32, 128, w.in, w.b_in, t, mid); }, [&](int i, int p0, int p1, const float* t) {
        int x = xs[i];
        bf* o1 = s.a1 + (y + 1) * g.r1 + (x + 1) * 32; bf* o2 = s.a2 + (y + 2) * g.r2 + (x + 2) * 32;
        for (int p = p0; p < p1; p++) {
            const float* q = t + p * 64;
            _mm512_storeu_si512(o1 + p * 32, _mm512_max_epi16(cvt2(_mm512_load_ps(q), _mm512_load_ps(q + 16)), zero));
            _mm512_storeu_si512(o2 + p * 32, _mm512_max_epi16(cvt2(_mm512_load_ps(q + 32), _mm512_load_ps(q + 48)), zero));
        }
    });
}
static void spread_row(const Saved& s, const Geo& g, const Packed& w, int y, const int* xs, int n, float* t, bf* out) {
    const V zero = _mm512_setzero_si512();
    for (int h = 0; h < 2; h++)
        pipelined((n + 1) / 2, 32, t, [&](int i, float* t, auto mid) {
            int x0 = xs[2 * i], x1 = xs[std::min(2 * i + 1, n - 1)], d = h + 1;
            const bf* a = h ? s.a2 + y * g.r2 : s.a1 + y * g.r1;
            conv32(a + x0 * 32, a + x1 * 32, h ? g.r2 : g.r1, d, h ? w.d2 : w.d1, w.b_d + 32 * h, t, mid);
        }, [&](int i, int p0, int p1, const float* t) {
            int x0 = xs[2 * i], x1 = xs[std::min(2 * i + 1, n - 1)];
            for (int p = p0; p < p1; p++) {
                bf* o = s.y + ((size_t)y * g.W + (p < 16 ? x0 : x1) + (p & 15)) * 64 + 32 * h;
                _mm512_storeu_si512(o, _mm512_max_epi16(cvt2(_mm512_load_ps(t + p * 32), _mm512_load_ps(t + p * 32 + 16)), zero));
            }
        });
    pipelined(n, 16, t, [&](int i, float* t, auto mid) { const bf* x = s.y + ((size_t)y * g.W + xs[i]) * 64; gemm(x, x + 32, 128, w.out, w.b_out, t, mid); }, [&](int i, int p0, int p1, const float* t) {
        size_t at = ((size_t)y * g.W + xs[i]) * 64;
        for (int p = p0; p < p1; p++)
            for (int h = 0; h < 2; h++) {
                V x = _mm512_loadu_si512(s.x + at + p * 64 + 32 * h);
                const float* q = t + p * 64 + 32 * h;
                _mm512_storeu_si512(out + at + p * 64 + 32 * h, cvt2(_mm512_add_ps(lo_f(x), _mm512_load_ps(q)), _mm512_add_ps(hi_f(x), _mm512_load_ps(q + 16))));
            }
    });
}
static void block_forward(const Saved& s, const Geo& g, const Packed& w, const int* xs, int n, float* t, bf* out) {
    zero_frame(s.a1, g.H, g.W, 1); zero_frame(s.a2, g.H, g.W, 2);
    for (int y = 0; y < g.H + 2; y++) {
        if (y < g.H) squeeze_row(s, g, w, y, xs, n, t);
        if (y >= 2) spread_row(s, g, w, y - 2, xs, n, t, out);
    }
}
static void add_to(bf* out, const bf* a, const bf* b, size_t n) {
    for (size_t i = 0; i < n; i += 32) {
        V x = _mm512_loadu_si512(a + i), y = _mm512_loadu_si512(b + i);
        _mm512_storeu_si512(out + i, cvt2(_mm512_add_ps(lo_f(x), lo_f(y)), _mm512_add_ps(hi_f(x), hi_f(y))));
    }
}

extern "C" size_t save_size(int H, int W) { return Geo(H, W).save; }
// out = x + blocks(x). weights: 8 pointers a block; saved: (N, S, save_size), what each block has made, where S = B; with
// S = 2 the next but one takes its place
extern "C" void chain_forward(int N, int H, int W, int B, int S, const bf* x, const float** weights, bf* out, bf* saved) {
    Geo g(H, W);
    std::vector<Packed>* packs = new std::vector<Packed>(B);
    for (int b = 0; b < B; b++) { const float** q = weights + 8 * b; (*packs)[b].from(q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7], false); }
#pragma omp parallel
    {
        alignas(64) float t[2048]; int xs[512]; int n = starts(W, xs);
        tiles_on();
#pragma omp for schedule(dynamic, 1)
        for (int i = 0; i < N; i++) {
            bf* mine = saved + (size_t)i * S * g.save;
            const bf* xi = x + i * g.px * 64; bf* oi = out + i * g.px * 64;
            memcpy(mine, xi, g.px * 128);
            for (int b = 0; b < B; b++) {
                Saved s(mine + b % S * g.save, g);
                block_forward(s, g, (*packs)[b], xs, n, t, b + 1 < B ? mine + (b + 1) % S * g.save : oi);
            }
            add_to(oi, oi, xi, g.px * 64);
        }
        _tile_release();
    }
    delete packs;
}

// ---- gradients of weights ----
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
struct Grads { alignas(64) float in[4096], out[4096], d1[9216], d2[9216], b_in[64], b_d[64], b_out[64]; };
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
struct Scratch { Buf at, gv, gy1, gy2, ga1, ga2, g0, g1; };  // of a thread
static const int BAND = 8;
static void acc_store(float* to, const __m512* acc, int n) { for (int i = 0; i < n; i++) _mm512_storeu_ps(to + 16 * i, _mm512_add_ps(_mm512_loadu_ps(to + 16 * i), acc[i])); }

static const int CHUNK = 128;  // pixels, whose transposed features stay in the nearest cache
static const size_t CHUNK_CS = CHUNK + 32, CHUNK_HALF = CHUNK * 16 + 32;
// dw (64, 64) += x^T g over n pixels, db (64) += sum of g; the halves of g's channels lie at g1 and g2, gs apart from pixel to
// pixel; room for aT[64][CHUNK_CS] and gV[4][CHUNK_HALF]
static void outer64(const bf* x, const bf* g1, const bf* g2, int gs, int n, bf* aT, bf* gV, float* dw, float* db) {
    __m512 acc[4]; for (auto& v : acc) v = _mm512_setzero_ps();
    for (int c = 0; c < n; c += CHUNK) {
        int px = std::min(CHUNK, n - c), steps = (px + 31) / 32;
        for (int k = 0; k < steps; k++)
            for (int h = 0; h < 2; h++) {
                int valid = std::min(32, px - k * 32); size_t at = c + k * 32;
                transposed(x + at * 64 + 32 * h, 64, valid, aT + 32 * h * CHUNK_CS + k * 32, CHUNK_CS);
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

// gradient of a block: gout (H, W, 64) -> gx
static void block_backward(const Saved& s, const Geo& g, const Packed& w, const int* xs, int n, float* t, Scratch& sc, const bf* gout, bf* gx, Grads& d) {
    const V zero = _mm512_setzero_si512();
    int H = g.H, W = g.W, steps = (W + 31) / 32, wide = steps * 32;
    // rows r0 - 4 .. r1 + 2 of gy alone are kept, and those of ga that were made last
    bf *ring1 = sc.gy1.get<bf>((BAND + 6) * g.r1), *ring2 = sc.gy2.get<bf>((BAND + 6) * g.r2);
    bf *keep1 = sc.ga1.get<bf>((size_t)(BAND + 2) * W * 32), *keep2 = sc.ga2.get<bf>((size_t)(BAND + 2) * W * 32);
    memset(ring1, 0, (BAND + 6) * g.r1 * 2); memset(ring2, 0, (BAND + 6) * g.r2 * 2);
    int wa = (W + 4 + 31) / 32 * 32;  // padded rows, transposed
    size_t cs = (size_t)(BAND + 4) * wa + 32;
    if ((cs / 32) % 2 == 0) cs += 32;
    bf* aT = sc.at.get<bf>(64 * cs + 64);
    size_t half = (size_t)BAND * wide * 16 + 32;  // [pairs][16][2] over the band
    bf* gV = sc.gv.get<bf>(4 * half + 64);
    for (int r0 = 0, q0 = 0; r0 < H; r0 += BAND) {
        int r1 = std::min(r0 + BAND, H), q1 = r1 == H ? H : std::max(r1 - 2, q0);
        if (r0) {
            memmove(ring1, ring1 + BAND * g.r1, 4 * g.r1 * 2); memmove(ring2, ring2 + BAND * g.r2, 4 * g.r2 * 2);
        }
        if (r1 == H) { memset(ring1 + (r1 - r0 + 4) * g.r1, 0, 2 * g.r1 * 2); memset(ring2 + (r1 - r0 + 4) * g.r2, 0, 2 * g.r2 * 2); }
        // as if whole: row y of the padded halves
        bf *gy1 = ring1 + (4 - r0 - 1) * (ptrdiff_t)g.r1, *gy2 = ring2 + (4 - r0 - 2) * (ptrdiff_t)g.r2;
        bf *ga1 = keep1 - (ptrdiff_t)q0 * W * 32, *ga2 = keep2 - (ptrdiff_t)q0 * W * 32;
        // before the last convolution: gy = (gout W_out^T) where y > 0
        for (int y = r0; y < r1; y++)
            pipelined(n, 16, t, [&](int i, float* t, auto mid) { const bf* x = gout + ((size_t)y * W + xs[i]) * 64; gemm(x, x + 32, 128, w.out_t, nullptr, t, mid); }, [&](int i, int p0, int p1, const float* t) {
                size_t at = ((size_t)y * W + xs[i]) * 64;
                bf* o1 = gy1 + (y + 1) * g.r1 + (xs[i] + 1) * 32; bf* o2 = gy2 + (y + 2) * g.r2 + (xs[i] + 2) * 32;
                for (int p = p0; p < p1; p++) {
                    const float* q = t + p * 64; const bf* yy = s.y + at + p * 64;
                    __mmask32 m1 = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(yy), zero), m2 = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(yy + 32), zero);
                    _mm512_storeu_si512(o1 + p * 32, _mm512_maskz_mov_epi16(m1, cvt2(_mm512_load_ps(q), _mm512_load_ps(q + 16))));
                    _mm512_storeu_si512(o2 + p * 32, _mm512_maskz_mov_epi16(m2, cvt2(_mm512_load_ps(q + 32), _mm512_load_ps(q + 48))));
                }
            });
        // before the dilated ones: ga, and gx
        for (int y = q0; y < q1; y++) {
            for (int h = 0; h < 2; h++)
                pipelined((n + 1) / 2, 32, t, [&](int i, float* t, auto mid) {
                    int x0 = xs[2 * i], x1 = xs[std::min(2 * i + 1, n - 1)], dl = h + 1;
                    const bf* a = h ? gy2 + y * g.r2 : gy1 + y * g.r1;
                    conv32(a + x0 * 32, a + x1 * 32, h ? g.r2 : g.r1, dl, h ? w.d2_t : w.d1_t, nullptr, t, mid);
                }, [&](int i, int p0, int p1, const float* t) {
                    int x0 = xs[2 * i], x1 = xs[std::min(2 * i + 1, n - 1)];
                    for (int p = p0; p < p1; p++) {
                        int x = (p < 16 ? x0 : x1) + (p & 15);
                        const bf* av = h ? s.a2 + (y + 2) * g.r2 + (x + 2) * 32 : s.a1 + (y + 1) * g.r1 + (x + 1) * 32;
                        __mmask32 m = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(av), zero);
                        _mm512_storeu_si512((h ? ga2 : ga1) + ((size_t)y * W + x) * 32, _mm512_maskz_mov_epi16(m, cvt2(_mm512_load_ps(t + p * 32), _mm512_load_ps(t + p * 32 + 16))));
                    }
                });
            pipelined(n, 16, t, [&](int i, float* t, auto mid) { size_t at = (size_t)y * W + xs[i]; gemm(ga1 + at * 32, ga2 + at * 32, 64, w.in_t, nullptr, t, mid); }, [&](int i, int p0, int p1, const float* t) {
                size_t at = (size_t)y * W + xs[i];
                for (int p = p0; p < p1; p++) for (int h = 0; h < 2; h++) {
                    V x = _mm512_loadu_si512(gout + (at + p) * 64 + 32 * h);
                    const float* q = t + p * 64 + 32 * h;
                    _mm512_storeu_si512(gx + (at + p) * 64 + 32 * h, cvt2(_mm512_add_ps(lo_f(x), _mm512_load_ps(q)), _mm512_add_ps(hi_f(x), _mm512_load_ps(q + 16))));
                }
            });
        }
        int rows = r1 - r0;
        // out: y^T gout of rows r0..r1; in: x^T ga of rows q0..q1
        const bf* there = gout + (size_t)r0 * W * 64;
        outer64(s.y + (size_t)r0 * W * 64, there, there + 32, 64, rows * W, aT, gV, d.out, d.b_out);
        outer64(s.x + (size_t)q0 * W * 64, ga1 + (size_t)q0 * W * 32, ga2 + (size_t)q0 * W * 32, 32, (q1 - q0) * W, aT, gV, d.in, d.b_in);
        // dilated: rows r0..r1 of gy, a of rows r0 - d .. r1 + d
        for (int h = 0; h < 2; h++) {
            int dl = h + 1, wp = W + 2 * dl; size_t rowp = h ? g.r2 : g.r1;
            const bf* a = h ? s.a2 : s.a1; const bf* gy = h ? gy2 : gy1;
            __m512 acc[2]; for (auto& v : acc) v = _mm512_setzero_ps();
            for (int y = 0; y < rows + 2 * dl; y++)
                for (int x = 0; x < wa; x += 32)
                    transposed(a + (r0 + y) * rowp + x * 32, 32, std::max(0, std::min(32, wp - x)), aT + y * wa + x, cs);
            for (int y = 0; y < rows; y++)
                for (int k = 0; k < steps; k++)
                    paired(gy + (r0 + y + dl) * rowp + (k * 32 + dl) * 32, 32, std::min(32, W - k * 32), gV + (y * steps + k) * 512, half, acc);
            acc_store(d.b_d + 32 * h, acc, 2);
            for (int ky = 0; ky < 3; ky++) for (int kx = 0; kx < 3; kx++) {
                float* dst = (h ? d.d2 : d.d1) + (ky * 3 + kx) * 1024;
                outer_begin(dst, 32);
                for (int y = 0; y < rows; y++) {
                    const bf* A = aT + (y + ky * dl) * wa + kx * dl; const bf* G = gV + (size_t)y * steps * 512;
                    for (int k = 0; k < steps; k++) outer_step(A + k * 32, cs, G + k * 512, half);
                }
                outer_end(dst, 32);
            }
        }
        q0 = q1;
    }
}

// gout -> gx; grads: 8 pointers a block, overwritten
extern "C" void chain_backward(int N, int H, int W, int B, const bf* gout, const float** weights, const bf* saved, bf* gx, float** grads) {
    Geo g(H, W);
    std::vector<Packed>* packs = new std::vector<Packed>(B);
    for (int b = 0; b < B; b++) { const float** q = weights + 8 * b; (*packs)[b].from(q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7], true); }
    int threads = omp_get_max_threads();
    std::vector<Grads>* all = new std::vector<Grads>((size_t)threads * B);
    memset((void*)all->data(), 0, sizeof(Grads) * threads * B);
#pragma omp parallel
    {
        alignas(64) float t[2048]; int xs[512]; int n = starts(W, xs), me = omp_get_thread_num();
        static thread_local Scratch sc;
        tiles_on();
#pragma omp for schedule(dynamic, 1)
        for (int i = 0; i < N; i++) {
            const bf* mine = saved + (size_t)i * B * g.save;
            const bf* go = gout + i * g.px * 64;
            bf* ping[2] = {sc.g0.get<bf>(g.px * 64), sc.g1.get<bf>(g.px * 64)};
            const bf* from = go;
            for (int b = B - 1; b >= 0; b--) {
                bf* to = ping[b & 1];
                block_backward(Saved((bf*)mine + b * g.save, g), g, (*packs)[b], xs, n, t, sc, from, to, (*all)[(size_t)me * B + b]);
                from = to;
            }
            add_to(gx + i * g.px * 64, from, go, g.px * 64);
        }
        _tile_release();
    }
    for (int b = 0; b < B; b++) {
        Grads& d = (*all)[b];
        float* f = (float*)&d;
        for (int k = 1; k < threads; k++) { const float* o = (const float*)&(*all)[(size_t)k * B + b]; for (size_t i = 0; i < sizeof(Grads) / 4; i++) f[i] += o[i]; }
        float** q = grads + 8 * b;
        auto at = [](int i) { return i / 32 * 32 + order(i % 32); };
        for (int o = 0; o < 64; o++) for (int i = 0; i < 64; i++) { q[0][at(o) * 64 + at(i)] = d.in[i * 64 + o]; q[6][at(o) * 64 + at(i)] = d.out[i * 64 + o]; }
        for (int o = 0; o < 32; o++) for (int i = 0; i < 32; i++) for (int k = 0; k < 9; k++) {
            q[2][(at(o) * 32 + at(i)) * 9 + k] = d.d1[k * 1024 + i * 32 + o]; q[4][(at(o) * 32 + at(i)) * 9 + k] = d.d2[k * 1024 + i * 32 + o];
        }
        for (int o = 0; o < 64; o++) { q[1][at(o)] = d.b_in[o]; q[7][at(o)] = d.b_out[o]; q[o < 32 ? 3 : 5][at(o) % 32] = d.b_d[o]; }
    }
    delete packs; delete all;
}

// ---- fusions: out = bias + sum of W_j x_j + up; w: (64, ws) float, row is an output, input j from column 64 j ----
extern "C" void fuse_forward(int64_t px, int n, const bf** x, const float* w, int ws, const float* bias, const bf* up, bf* out) {
    std::vector<bf> packs(n * 4096 + 64);
    bf* packed = (bf*)(((uintptr_t)packs.data() + 63) / 64 * 64);
    for (int j = 0; j < n; j++) pack(packed + j * 4096, 64, 64, [&](int k, int o) { return w[o * ws + j * 64 + k]; });
    alignas(64) float b[64]; memcpy(b, bias, 256);
#pragma omp parallel
    {
        alignas(64) float t[2048];
        tiles_on();
#pragma omp for schedule(static)
        for (int64_t c = 0; c < px; c += 512) {
            int m = (int)std::min<int64_t>(512, px - c) / 16;
            pipelined(m, 16, t, [&](int i, float* t, auto mid) {
                int64_t at = (c + i * 16) * 64;
                _tile_loadd(0, b, 0); _tile_loadd(1, b + 16, 0); _tile_loadd(2, b + 32, 0); _tile_loadd(3, b + 48, 0);
                for (int j = 0; j < n; j++) for (int k = 0; k < 2; k++) {
                    const bf* q = packed + j * 4096 + k * 2048;
                    _tile_loadd(4, x[j] + at + 32 * k, 128); _tile_loadd(6, q, 64); _tile_loadd(7, q + 512, 64);
                    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7);
                    if (!j) mid(2 * k);
                    _tile_loadd(6, q + 1024, 64); _tile_loadd(7, q + 1536, 64);
                    _tile_dpbf16ps(2, 4, 6); _tile_dpbf16ps(3, 4, 7);
                    if (!j) mid(2 * k + 1);
                }
                _tile_stored(0, t, 256); _tile_stored(1, t + 16, 256); _tile_stored(2, t + 32, 256); _tile_stored(3, t + 48, 256);
            }, [&](int i, int p0, int p1, const float* t) {
                int64_t at = (c + i * 16) * 64;
                for (int p = p0; p < p1; p++) for (int h = 0; h < 2; h++) {
                    const float* q = t + p * 64 + 32 * h; int64_t o = at + p * 64 + 32 * h;
                    __m512 lo = _mm512_load_ps(q), hi = _mm512_load_ps(q + 16);
                    if (up) { V u = _mm512_loadu_si512(up + o); lo = _mm512_add_ps(lo, lo_f(u)); hi = _mm512_add_ps(hi, hi_f(u)); }
                    _mm512_storeu_si512(out + o, cvt2(lo, hi));
                }
            });
        }
        _tile_release();
    }
}
// g -> gx[j], with later[j] (what others that used x[j] afterwards found; may be null) added; gw (n, 64 in, 64 out) and gb
// (64), both overwritten, channels in their order
extern "C" void fuse_backward(int64_t px, int n, const bf* g, const bf** x, const float* w, int ws, const bf** later, bf** gx, float* gw, float* gb) {
    std::vector<bf> packs(n * 4096 + 64);
    bf* packed = (bf*)(((uintptr_t)packs.data() + 63) / 64 * 64);
    for (int j = 0; j < n; j++) pack(packed + j * 4096, 64, 64, [&](int k, int o) { return w[k * ws + j * 64 + o]; });
    memset(gw, 0, n * 4096 * 4); memset(gb, 0, 256);
#pragma omp parallel
    {
        alignas(64) float t[2048];
        std::vector<float> dws(n * 4096 + 16), db(n * 64);  // of the bias n times the same
        float* dw = (float*)(((uintptr_t)dws.data() + 63) / 64 * 64);
        std::vector<bf> room(64 * CHUNK_CS + 4 * CHUNK_HALF + 64);
        bf* aT = (bf*)(((uintptr_t)room.data() + 63) / 64 * 64); bf* gV = aT + 64 * CHUNK_CS;
        tiles_on();
#pragma omp for schedule(static)
        for (int64_t c = 0; c < px; c += 512) {
            int here = (int)std::min<int64_t>(512, px - c);
            for (int j = 0; j < n; j++) {
                pipelined(here / 16, 16, t, [&](int i, float* t, auto mid) { const bf* q = g + (c + i * 16) * 64; gemm(q, q + 32, 128, packed + j * 4096, nullptr, t, mid); },
                    [&](int i, int p0, int p1, const float* t) {
                        for (int p = p0; p < p1; p++) for (int h = 0; h < 2; h++) {
                            const float* q = t + p * 64 + 32 * h; int64_t o = (c + i * 16 + p) * 64 + 32 * h;
                            __m512 lo = _mm512_load_ps(q), hi = _mm512_load_ps(q + 16);
                            if (later[j]) { V u = _mm512_loadu_si512(later[j] + o); lo = _mm512_add_ps(lo, lo_f(u)); hi = _mm512_add_ps(hi, hi_f(u)); }
                            _mm512_storeu_si512(gx[j] + o, cvt2(lo, hi));
                        }
                    });
                outer64(x[j] + c * 64, g + c * 64, g + c * 64 + 32, 64, here, aT, gV, dw + j * 4096, db.data() + j * 64);
            }
        }
        _tile_release();
#pragma omp critical
        {
            auto at = [](int i) { return i / 32 * 32 + order(i % 32); };
            for (int j = 0; j < n; j++) for (int i = 0; i < 64; i++) for (int o = 0; o < 64; o++) gw[j * 4096 + at(i) * 64 + at(o)] += dw[j * 4096 + i * 64 + o];
            for (int o = 0; o < 64; o++) gb[at(o)] += db[o];
        }
    }
}

// ---- differences of features: n values, a multiple of 32 ----
extern "C" double difference(int64_t n, const bf* a, const bf* b) {
    double sum = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum)
    for (int64_t c = 0; c < n; c += 8192) {
        __m512 lo = _mm512_setzero_ps(), hi = lo;
        for (int64_t i = c; i < std::min(c + 8192, n); i += 32) {
            V x = _mm512_loadu_si512(a + i), y = _mm512_loadu_si512(b + i);
            lo = _mm512_add_ps(lo, _mm512_abs_ps(_mm512_sub_ps(lo_f(x), lo_f(y)))); hi = _mm512_add_ps(hi, _mm512_abs_ps(_mm512_sub_ps(hi_f(x), hi_f(y))));
        }
        sum += _mm512_reduce_add_ps(lo) + _mm512_reduce_add_ps(hi);
    }
    return sum;
}
// out = scale where a is above b, -scale where it is below, else 0
extern "C" void difference_backward(int64_t n, const bf* a, const bf* b, float scale, bf* out) {
    const V up = _mm512_set1_epi16(down(scale)), fall = _mm512_set1_epi16(down(-scale));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < n; i += 32) {
        V x = _mm512_loadu_si512(a + i), y = _mm512_loadu_si512(b + i);
        __m512 d = _mm512_sub_ps(lo_f(x), lo_f(y)), e = _mm512_sub_ps(hi_f(x), hi_f(y)), z = _mm512_setzero_ps();
        __mmask32 above = _mm512_cmp_ps_mask(d, z, _CMP_GT_OQ) | (__mmask32)_mm512_cmp_ps_mask(e, z, _CMP_GT_OQ) << 16;
        __mmask32 below = _mm512_cmp_ps_mask(d, z, _CMP_LT_OQ) | (__mmask32)_mm512_cmp_ps_mask(e, z, _CMP_LT_OQ) << 16;
        _mm512_storeu_si512(out + i, _mm512_mask_mov_epi16(_mm512_maskz_mov_epi16(above, up), below, fall));
    }
}
