// The least work that an exact Hamming search can do on this machine, with no answer but a checksum or a minimum.
// Compiled by experiments/benchmark_search.py. Codes are 128 bits, planar: word w of row r is planes[w * stride + r].
#include <immintrin.h>
#include <stdint.h>

enum {
    WORDS = 4,
    TILE = 2048,  // codes (32 KB) that stay in the first-level cache while all queries meet them
    ABREAST = 4,  // vectors of rows that meet a query's word at a time, which is then read once for all
};

// One pass over the planes, all four at once.
uint32_t read_pass(const uint32_t *planes, int64_t rows, int64_t stride) {
    __m512i sums[WORDS] = {{0}};
    for (int64_t row = 0; row + 16 <= rows; row += 16)
        for (int word = 0; word < WORDS; word++)
            sums[word] = _mm512_xor_si512(sums[word], _mm512_loadu_si512(planes + word * stride + row));
    sums[0] = _mm512_xor_si512(_mm512_xor_si512(sums[0], sums[1]), _mm512_xor_si512(sums[2], sums[3]));
    return _mm512_reduce_add_epi32(sums[0]);
}

// The smallest distance of each query, windows of n codes, wherever they begin (borders of recordings are not looked at).
static inline __attribute__((always_inline)) void scan(const uint32_t *planes, int64_t rows, int64_t stride,
                                                       const uint32_t *queries, int64_t count, uint32_t *minima, int n) {
    int64_t begins = rows - n + 1;
    for (int64_t query = 0; query < count; query++) minima[query] = UINT32_MAX;
    for (int64_t tile = 0; tile < begins; tile += TILE) {
        int64_t end = tile + TILE < begins ? tile + TILE : begins;
        for (int64_t query = 0; query < count; query++) {
            const uint32_t *asked = queries + query * n * WORDS;
            __m512i best = _mm512_set1_epi32(-1);
            for (int64_t row = tile; row + 16 * ABREAST <= end; row += 16 * ABREAST) {
                __m512i totals[ABREAST] = {{0}};
                for (int code = 0; code < n; code++)
                    for (int word = 0; word < WORDS; word++) {
                        const uint32_t *there = planes + word * stride + row + code;
                        __m512i bits = _mm512_set1_epi32(asked[code * WORDS + word]);
                        for (int i = 0; i < ABREAST; i++) {
                            __m512i flips = _mm512_xor_si512(_mm512_loadu_si512(there + 16 * i), bits);
                            totals[i] = _mm512_add_epi32(totals[i], _mm512_popcnt_epi32(flips));
                        }
                    }
                for (int i = 0; i < ABREAST; i++) best = _mm512_min_epu32(best, totals[i]);
            }
            uint32_t least = _mm512_reduce_min_epu32(best);
            if (least < minima[query]) minima[query] = least;
        }
    }
}

void scan_1(const uint32_t *planes, int64_t rows, int64_t stride, const uint32_t *queries, int64_t count,
            uint32_t *minima) {
    scan(planes, rows, stride, queries, count, minima, 1);
}

void scan_9(const uint32_t *planes, int64_t rows, int64_t stride, const uint32_t *queries, int64_t count,
            uint32_t *minima) {
    scan(planes, rows, stride, queries, count, minima, 9);
}
