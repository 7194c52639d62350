// The blocks of a group, forward and backward; halves of a block's channels lie in arrays of their own, framed by zeros.
#include "tiles.h"

extern "C" int amx_allowed() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

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

struct Grads { alignas(64) float in[4096], out[4096], d1[9216], d2[9216], b_in[64], b_d[64], b_out[64]; };
struct Scratch { Buf at, gv, gy1, gy2, ga1, ga2, g0, g1; };  // of a thread
static const int BAND = 8;

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
        outer64(s.y + (size_t)r0 * W * 64, 64, there, there + 32, 64, rows * W, aT, gV, d.out, d.b_out);
        outer64(s.x + (size_t)q0 * W * 64, 64, ga1 + (size_t)q0 * W * 32, ga2 + (size_t)q0 * W * 32, 32, (q1 - q0) * W, aT, gV, d.in, d.b_in);
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
