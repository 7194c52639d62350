// Head and tail: images (N, H, W, C) in float32, 3x3 convolutions, w: (9, C, 64)
#include "tiles.h"

static inline const float* pixel(const float* image, int H, int W, int C, int n, int y, int x) { return image + (((size_t)n * H + y) * W + x) * C; }
// features = bias (may be null) + convolution of the image
extern "C" void to_features(int N, int H, int W, int C, const float* image, const float* w, const float* bias, bf* out) {
#pragma omp parallel for schedule(static)
    for (int r = 0; r < N * H; r++) {
        int n = r / H, y = r % H;
        for (int x = 0; x < W; x++) {
            __m512 a[4];
            for (int k = 0; k < 4; k++) a[k] = bias ? _mm512_loadu_ps(bias + 16 * k) : _mm512_setzero_ps();
            for (int t = 0; t < 9; t++) {
                int yy = y + t / 3 - 1, xx = x + t % 3 - 1;
                if (yy < 0 || yy >= H || xx < 0 || xx >= W) continue;
                const float* p = pixel(image, H, W, C, n, yy, xx);
                for (int c = 0; c < C; c++) {
                    __m512 v = _mm512_set1_ps(p[c]); const float* q = w + (t * C + c) * 64;
                    for (int k = 0; k < 4; k++) a[k] = _mm512_fmadd_ps(v, _mm512_loadu_ps(q + 16 * k), a[k]);
                }
            }
            bf* o = out + ((size_t)r * W + x) * 64;
            _mm512_storeu_si512(o, cvt2(a[0], a[1])); _mm512_storeu_si512(o + 32, cvt2(a[2], a[3]));
        }
    }
}
// gw (9, C, 64): for each tap of a pixel the image's intensity there times the pixel's features, summed; gb (64): their sum
extern "C" void of_features(int N, int H, int W, int C, const float* image, const bf* features, float* gw, float* gb) {
    memset(gw, 0, 9 * C * 64 * 4); memset(gb, 0, 256);
#pragma omp parallel
    {
        std::vector<float> sums(9 * C * 64 + 64);
#pragma omp for schedule(static)
        for (int r = 0; r < N * H; r++) {
            int n = r / H, y = r % H;
            for (int h = 0; h < 2; h++) {
                __m512 b[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
                for (int c = 0; c < C; c++) {
                    __m512 a[9][2];
                    for (auto& v : a) v[0] = v[1] = _mm512_setzero_ps();
                    for (int x = 0; x < W; x++) {
                        V f = _mm512_loadu_si512(features + ((size_t)r * W + x) * 64 + 32 * h);
                        __m512 lo = lo_f(f), hi = hi_f(f);
                        if (!c) { b[0] = _mm512_add_ps(b[0], lo); b[1] = _mm512_add_ps(b[1], hi); }
#pragma GCC unroll 9
                        for (int t = 0; t < 9; t++) {
                            int yy = y + t / 3 - 1, xx = x + t % 3 - 1;
                            __m512 v = _mm512_set1_ps(yy < 0 || yy >= H || xx < 0 || xx >= W ? 0.f : pixel(image, H, W, C, n, yy, xx)[c]);
                            a[t][0] = _mm512_fmadd_ps(v, lo, a[t][0]); a[t][1] = _mm512_fmadd_ps(v, hi, a[t][1]);
                        }
                    }
                    for (int t = 0; t < 9; t++) acc_store(sums.data() + (t * C + c) * 64 + 32 * h, a[t], 2);
                }
                acc_store(sums.data() + 9 * C * 64 + 32 * h, b, 2);
            }
        }
#pragma omp critical
        {
            for (int i = 0; i < 9 * C * 64; i++) gw[i] += sums[i];
            for (int i = 0; i < 64; i++) gb[i] += sums[9 * C * 64 + i];
        }
    }
}
