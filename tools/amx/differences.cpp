// Differences of features: n values, a multiple of 32
#include "tiles.h"

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
