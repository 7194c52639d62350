// Fusions: out = bias + sum of W_j x_j + up; w: (64, ws) float, row is an output, input j from column 64 j
#include "tiles.h"

extern "C" void fuse_forward(int64_t px, int n, const bf** x, const float* w, int ws, const float* bias, const bf* up, bf* out) {
    Room packs(n * 4096); bf* packed = packs.at();
    for (int j = 0; j < n; j++) pack(packed + j * 4096, 64, 64, [&](int k, int o) { return w[o * ws + j * 64 + k]; });
    alignas(64) float b[64]; memcpy(b, bias, 256);
#pragma omp parallel
    {
        alignas(64) float t[2048];
        tiles_on();
#pragma omp for schedule(static)
        for (int64_t c = 0; c < px; c += 512) {
            int m = (int)std::min<int64_t>(512, px - c) / 16;
            pipelined(m, 16, t, [&](int i, float* t, auto mid) { products(n, [&](int j) { return x[j] + (c + i * 16) * 64; }, 64, packed, b, t, mid); }, [&](int i, int p0, int p1, const float* t) {
                int64_t at = (c + i * 16) * 64;
                for (int p = p0; p < p1; p++) for (int h = 0; h < 2; h++) {
                    int64_t o = at + p * 64 + 32 * h;
                    put(out + o, t + p * 64 + 32 * h, up ? up + o : nullptr);
                }
            });
        }
        _tile_release();
    }
}
// g -> gx[j], with later[j] (what others that used x[j] afterwards found; may be null) added; gw (n, 64 in, 64 out) and gb
// (64), both overwritten, channels in their order
extern "C" void fuse_backward(int64_t px, int n, const bf* g, const bf** x, const float* w, int ws, const bf** later, bf** gx, float* gw, float* gb) {
    Room packs(n * 4096); bf* packed = packs.at();
    for (int j = 0; j < n; j++) pack(packed + j * 4096, 64, 64, [&](int k, int o) { return w[k * ws + j * 64 + o]; });
    memset(gw, 0, n * 4096 * 4); memset(gb, 0, 256);
#pragma omp parallel
    {
        alignas(64) float t[2048];
        std::vector<float> dws(n * 4096 + 16), db(n * 64);  // of the bias n times the same
        float* dw = (float*)(((uintptr_t)dws.data() + 63) / 64 * 64);
        Room room(64 * CHUNK_CS + 4 * CHUNK_HALF); bf *aT = room.at(), *gV = aT + 64 * CHUNK_CS;
        tiles_on();
#pragma omp for schedule(static)
        for (int64_t c = 0; c < px; c += 512) {
            int here = (int)std::min<int64_t>(512, px - c);
            for (int j = 0; j < n; j++) {
                pipelined(here / 16, 16, t, [&](int i, float* t, auto mid) { const bf* q = g + (c + i * 16) * 64; gemm(q, q + 32, 128, packed + j * 4096, nullptr, t, mid); },
                    [&](int i, int p0, int p1, const float* t) {
                        for (int p = p0; p < p1; p++) for (int h = 0; h < 2; h++) {
                            int64_t o = (c + i * 16 + p) * 64 + 32 * h;
                            put(gx[j] + o, t + p * 64 + 32 * h, later[j] ? later[j] + o : nullptr);
                        }
                    });
                outer64(x[j] + c * 64, 64, g + c * 64, g + c * 64 + 32, 64, here, aT, gV, dw + j * 4096, db.data() + j * 64);
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
