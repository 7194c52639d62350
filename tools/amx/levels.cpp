// Between levels: h and w, from 16 up, are of the coarse one, N times; w: for each of the 2 x 2 fine pixels of a coarse
// one (64 from, 64 to)
#include "tiles.h"

static const bf* fine_pixel(const bf* fine, size_t row, int w, int x, int j) { return fine + ((row * 2 + (j >> 1)) * 2 * w + 2 * x + (j & 1)) * 64; }
static void pack_taps(bf* packed, const float* w) { for (int j = 0; j < 4; j++) pack(packed + j * 4096, 64, 64, [&](int k, int o) { return w[j * 4096 + k * 64 + o]; }); }
// coarse = bias (may be null) + products of the fine ones
extern "C" void to_coarse(int N, int h, int w, const bf* fine, const float* weights, const float* bias, bf* out) {
    Room packs(4 * 4096); bf* packed = packs.at(); pack_taps(packed, weights);
    alignas(64) float b[64] = {0}; if (bias) memcpy(b, bias, 256);
#pragma omp parallel
    {
        alignas(64) float t[2048]; int xs[512]; int n = starts(w, xs);
        tiles_on();
#pragma omp for schedule(static)
        for (int r = 0; r < N * h; r++)
            pipelined(n, 16, t, [&](int i, float* t, auto mid) { products(4, [&](int j) { return fine_pixel(fine, r, w, xs[i], j); }, 128, packed, b, t, mid); }, [&](int i, int p0, int p1, const float* t) {
                bf* o = out + ((size_t)r * w + xs[i]) * 64;
                for (int p = p0; p < p1; p++) for (int h = 0; h < 2; h++) put(o + p * 64 + 32 * h, t + p * 64 + 32 * h, nullptr);
            });
        _tile_release();
    }
}
// fine = product of the coarse one, plus `later` (may be null)
extern "C" void to_fine(int N, int h, int w, const bf* coarse, const float* weights, const bf* later, bf* out) {
    Room packs(4 * 4096); bf* packed = packs.at(); pack_taps(packed, weights);
#pragma omp parallel
    {
        alignas(64) float t[2048]; int xs[512]; int n = starts(w, xs);
        tiles_on();
#pragma omp for schedule(static)
        for (int r = 0; r < N * h; r++) for (int j = 0; j < 4; j++)
            pipelined(n, 16, t, [&](int i, float* t, auto mid) { const bf* q = coarse + ((size_t)r * w + xs[i]) * 64; gemm(q, q + 32, 128, packed + j * 4096, nullptr, t, mid); }, [&](int i, int p0, int p1, const float* t) {
                size_t at = fine_pixel(out, r, w, xs[i], j) - out;
                for (int p = p0; p < p1; p++) for (int h = 0; h < 2; h++) {
                    size_t o = at + p * 128 + 32 * h;
                    put(out + o, t + p * 64 + 32 * h, later ? later + o : nullptr);
                }
            });
        _tile_release();
    }
}
// gw (4, 64 fine, 64 coarse) = fine^T coarse, gb (64) = sum of the coarse one
extern "C" void between(int N, int h, int w, const bf* fine, const bf* coarse, float* gw, float* gb) {
    memset(gw, 0, 4 * 4096 * 4); memset(gb, 0, 256);
#pragma omp parallel
    {
        std::vector<float> dws(4 * 4096 + 16), db(4 * 64);  // of the bias four times the same
        float* dw = (float*)(((uintptr_t)dws.data() + 63) / 64 * 64);
        Room room(64 * CHUNK_CS + 4 * CHUNK_HALF); bf *aT = room.at(), *gV = aT + 64 * CHUNK_CS;
        tiles_on();
#pragma omp for schedule(static)
        for (int r = 0; r < N * h; r++) for (int j = 0; j < 4; j++) {
            const bf* c = coarse + (size_t)r * w * 64;
            outer64(fine_pixel(fine, r, w, 0, j), 128, c, c + 32, 64, w, aT, gV, dw + j * 4096, db.data() + j * 64);
        }
        _tile_release();
#pragma omp critical
        {
            auto at = [](int i) { return i / 32 * 32 + order(i % 32); };
            for (int j = 0; j < 4; j++) for (int i = 0; i < 64; i++) for (int o = 0; o < 64; o++) gw[j * 4096 + at(i) * 64 + at(o)] += dw[j * 4096 + i * 64 + o];
            for (int o = 0; o < 64; o++) gb[at(o)] += db[o];
        }
    }
}
