/* The occupancy model of one piece of a census unit, and its gradient, on one core.
 *
 * The U-Net's streams work on planes: each channel's rows one after another, with one column of
 * zeros between two rows and a row of zeros above and below. So a 3 x 3 convolution with zero
 * padding is, along the whole plane, a sum over nine shifts, and vectors of pixels are always full.
 * The head works on the wanted pixels, a chunk of them at a time, which stays in the cache through
 * all layers and back. What is computed where, `regions.py` says; tests compare everything here
 * with autograd. Sums are taken in an order that depends on nothing but shapes.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

/* Channels that a kernel makes at once, from vectors of two times LANES pixels. */
#define OUT 8
#define STEP (2 * LANES)

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline vec load(const float *from) { return *(const vec *)from; }
static inline void store(float *to, vec v) { *(vec *)to = v; }
static inline vec all(float v) { return (vec){0} + v; }
/* Where it is not a number it stays that, so that a training gone wrong is noticed. */
static inline vec where_positive(vec of, vec v) { return (vec)((ivec)v & ~(of <= 0)); }
/* Once loaded it stays in a register: memory is what kernels wait for, and not arithmetic. */
#if defined(__AVX512F__)
#define HOLD(v) __asm__("" : "+v"(v))
#else
#define HOLD(v)
#endif
static inline float total(vec v)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
}

/* ---- Planes ------------------------------------------------------------------------------- */

/* `at` is pixel (0, 0) of the first channel, where a line of the cache begins. */
typedef struct {
    float *at;
    int channels, height, width;
    ptrdiff_t row, plane;
} Planes;

#define SLACK 64

static Planes planes(float **arena, int channels, int height, int width)
{
    Planes p = {0, channels, height, width, width + 1, 0};
    p.plane = (p.row * (height + 2) + SLACK) / 16 * 16 + 16;
    ptrdiff_t before = (p.row + 1 + 15) / 16 * 16;
    p.at = *arena + before;
    *arena += before + p.plane * channels;
    return p;
}

/* What lies around a channel's rows: zeros. */
static void clear_border(Planes p)
{
    for (int c = 0; c < p.channels; c++) {
        float *at = p.at + c * p.plane;
        memset(at - p.row - 1, 0, (p.row + 1) * sizeof(float));
        for (int r = 0; r < p.height; r++) at[r * p.row + p.width] = 0;
        memset(at + p.height * p.row, 0, (p.row + SLACK / 2) * sizeof(float));
    }
}

static void clear(Planes p)
{
    for (int c = 0; c < p.channels; c++)
        memset(p.at + c * p.plane - p.row - 1, 0,
               (p.row * (p.height + 2) + 1 + SLACK / 2) * sizeof(float));
}

static inline float *pixel(Planes p, int channel, int row, int col)
{
    return p.at + channel * p.plane + row * p.row + col;
}

static Planes some(Planes p, int first, int channels)
{
    p.at += first * p.plane;
    p.channels = channels;
    return p;
}

/* ---- 3 x 3 convolutions ------------------------------------------------------------------- */

#define LARGEST (32 * 16 * 9)

/* Weights (out, in, 3, 3) as the kernel reads them: (out / OUT, in, 9, OUT). With `back` those that
 * take the slope by what came out to the slope by what went in. */
static void packed(const float *w, int out, int in, int back, float *to)
{
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++)
            for (int k = 0; k < 9; k++) {
                float value = w[(o * in + i) * 9 + k];
                if (back)
                    to[((i / OUT * out + o) * 9 + 8 - k) * OUT + i % OUT] = value;
                else
                    to[((o / OUT * in + i) * 9 + k) * OUT + o % OUT] = value;
            }
}

/* y = w * x + bias, then ReLU where there is a bias; or, where there is `mask`, zero where that is
 * not positive. */
static void convolve(Planes x, const float *w, const float *bias, const Planes *mask, Planes y)
{
    ptrdiff_t count = y.height * y.row;
    for (ptrdiff_t i = 0; i < count; i += STEP)
        for (int block = 0; block < y.channels / OUT; block++) {
            vec sum[OUT][2];
            for (int o = 0; o < OUT; o++)
                sum[o][0] = sum[o][1] = all(bias ? bias[block * OUT + o] : 0);
            const float *weight = w + block * x.channels * 9 * OUT;
            for (int c = 0; c < x.channels; c++)
                for (int ky = -1; ky <= 1; ky++) {
                    const float *from = x.at + c * x.plane + i + ky * x.row - 1;
                    for (int kx = 0; kx < 3; kx++, weight += OUT) {
                        vec a = load(from + kx), b = load(from + kx + LANES);
#pragma GCC unroll 8
                        for (int o = 0; o < OUT; o++) {
                            sum[o][0] += a * weight[o];
                            sum[o][1] += b * weight[o];
                        }
                    }
                }
            for (int o = 0; o < OUT; o++)
                for (int half = 0; half < 2; half++) {
                    ptrdiff_t at = (block * OUT + o) * y.plane + i + half * LANES;
                    vec v = sum[o][half];
                    if (bias) v = where_positive(v, v);
                    if (mask) v = where_positive(load(mask->at + at), v);
                    store(y.at + at, v);
                }
        }
    clear_border(y);
}

/* Add the gradient of (out, in, 3, 3) weights and a bias, from the slope by what came out. */
static void by_weights(Planes x, Planes slope, float *by_weight, float *by_bias, float *scratch)
{
    const int chunk = 40 * LANES;
    vec *sums = (vec *)scratch;
    ptrdiff_t count = slope.height * slope.row;
    memset(sums, 0, slope.channels * x.channels * 9 * sizeof(vec));
    for (ptrdiff_t begin = 0; begin < count; begin += chunk) {
        ptrdiff_t end = begin + chunk < count ? begin + chunk : count;
        for (int block = 0; block < slope.channels; block += OUT) {
            const float *g = slope.at + block * slope.plane;
            for (int c = 0; c < x.channels; c++)
                for (int ky = 0; ky < 3; ky++) {
                    const float *from = x.at + c * x.plane + (ky - 1) * x.row - 1;
                    vec sum[OUT][3];
                    memset(sum, 0, sizeof sum);
                    for (ptrdiff_t i = begin; i < end; i += LANES) {
                        vec left = load(from + i), mid = load(from + i + 1);
                        vec right = load(from + i + 2);
#pragma GCC unroll 8
                        for (int o = 0; o < OUT; o++) {
                            vec by = load(g + o * slope.plane + i);
                            HOLD(by);
                            sum[o][0] += left * by;
                            sum[o][1] += mid * by;
                            sum[o][2] += right * by;
                        }
                    }
                    for (int o = 0; o < OUT; o++)
                        for (int kx = 0; kx < 3; kx++)
                            sums[((block + o) * x.channels + c) * 9 + ky * 3 + kx] += sum[o][kx];
                }
        }
    }
    for (int k = 0; k < slope.channels * x.channels * 9; k++) by_weight[k] += total(sums[k]);
    for (int o = 0; o < slope.channels; o++) {
        vec sum = all(0);
        for (ptrdiff_t i = 0; i < count; i += LANES) sum += load(slope.at + o * slope.plane + i);
        by_bias[o] += total(sum);
    }
}

/* ---- Pooling, raising, joining ------------------------------------------------------------ */

/* Largest of each two by two; the part of `x` that begins at (row, col). */
static void pool(Planes x, int row, int col, Planes y)
{
    for (int c = 0; c < y.channels; c++)
        for (int r = 0; r < y.height; r++) {
            const float *a = pixel(x, c, row + 2 * r, col), *b = a + x.row;
            float *to = pixel(y, c, r, 0);
            for (int i = 0; i < y.width; i++) {
                float up = a[2 * i] > a[2 * i + 1] ? a[2 * i] : a[2 * i + 1];
                float down = b[2 * i] > b[2 * i + 1] ? b[2 * i] : b[2 * i + 1];
                to[i] = up > down ? up : down;
            }
        }
    clear_border(y);
}

/* Give each slope to the first of the largest, unless a ReLU held that at zero. */
static void unpool(Planes slope, Planes x, int row, int col, Planes by_x)
{
    for (int c = 0; c < slope.channels; c++)
        for (int r = 0; r < slope.height; r++) {
            const float *g = pixel(slope, c, r, 0);
            const float *a = pixel(x, c, row + 2 * r, col), *b = a + x.row;
            float *ta = pixel(by_x, c, row + 2 * r, col), *tb = ta + by_x.row;
            for (int i = 0; i < slope.width; i++) {
                float p = a[2 * i], q = a[2 * i + 1], s = b[2 * i], t = b[2 * i + 1];
                float up = q > p ? q : p, down = t > s ? t : s, most = down > up ? down : up;
                float v = most <= 0 ? 0 : g[i];
                int in_up = up >= down;
                ta[2 * i] += in_up & (p >= q) ? v : 0;
                ta[2 * i + 1] += in_up & (p < q) ? v : 0;
                tb[2 * i] += !in_up & (s >= t) ? v : 0;
                tb[2 * i + 1] += !in_up & (s < t) ? v : 0;
            }
        }
}

/* The skip's part that begins at (row, col), into the first channels of `joined`. */
static void join(Planes skip, int row, int col, Planes joined)
{
    for (int c = 0; c < skip.channels; c++)
        for (int r = 0; r < joined.height; r++)
            memcpy(pixel(joined, c, r, 0), pixel(skip, c, row + r, col),
                   joined.width * sizeof(float));
    clear_border(some(joined, 0, skip.channels));
}

/* And its slope back, unless a ReLU held the skip at zero. */
static void unjoin(Planes by_joined, Planes skip, int row, int col, Planes by_skip)
{
    for (int c = 0; c < skip.channels; c++)
        for (int r = 0; r < by_joined.height; r++) {
            const float *g = pixel(by_joined, c, r, 0), *of = pixel(skip, c, row + r, col);
            float *to = pixel(by_skip, c, row + r, col);
            for (int i = 0; i < by_joined.width; i++) to[i] += of[i] <= 0 ? 0 : g[i];
        }
}

/* Transposed convolution, 2 x 2 and stride 2, weights (in, out, 2, 2), of the part of `below` that
 * begins at (row, col). */
static void raise(Planes below, int row, int col, const float *w, const float *bias, Planes y,
                  float *scratch)
{
    int width = y.width / 2, channels = below.channels;
    float *even = scratch, *odd = scratch + width;
    for (int o = 0; o < channels; o++)
        for (int r = 0; r < y.height; r++) {
            for (int i = 0; i < width; i++) even[i] = odd[i] = bias[o];
            for (int c = 0; c < channels; c++) {
                const float *weight = w + ((c * channels + o) * 2 + r % 2) * 2;
                const float *x = pixel(below, c, row + r / 2, col);
                float we = weight[0], wo = weight[1];
                for (int i = 0; i < width; i++) {
                    even[i] += x[i] * we;
                    odd[i] += x[i] * wo;
                }
            }
            float *to = pixel(y, o, r, 0);
            for (int i = 0; i < width; i++) {
                to[2 * i] = even[i];
                to[2 * i + 1] = odd[i];
            }
        }
    clear_border(y);
}

/* Gradient of weights and bias; slope by `below`, which a ReLU made. */
static void unraise(Planes slope, Planes below, int row, int col, const float *w, float *by_weight,
                    float *by_bias, Planes by_below, float *scratch)
{
    int width = slope.width / 2, channels = below.channels;
    int padded = (width + LANES - 1) / LANES * LANES;
    float *parts = scratch; /* (out, even and odd, padded) of one row */
    float *x = parts + channels * 2 * padded;
    vec *sums = (vec *)(x + channels * padded);
    memset(scratch, 0, channels * 3 * padded * sizeof(float));
    memset(sums, 0, (channels * channels * 4 + channels) * sizeof(vec));
    vec *bias_sums = sums + channels * channels * 4;
    for (int r = 0; r < slope.height; r++) {
        for (int o = 0; o < channels; o++) {
            const float *g = pixel(slope, o, r, 0);
            float *even = parts + o * 2 * padded, *odd = even + padded;
            for (int i = 0; i < width; i++) {
                even[i] = g[2 * i];
                odd[i] = g[2 * i + 1];
            }
            for (int i = 0; i < padded; i += LANES)
                bias_sums[o] += load(even + i) + load(odd + i);
        }
        for (int c = 0; c < channels; c++)
            memcpy(x + c * padded, pixel(below, c, row + r / 2, col), width * sizeof(float));
        for (int c = 0; c < channels; c++) {
            float *to = pixel(by_below, c, row + r / 2, col);
            for (int o = 0; o < channels; o++) {
                const float *even = parts + o * 2 * padded, *odd = even + padded;
                int k = ((c * channels + o) * 2 + r % 2) * 2;
                float we = w[k], wo = w[k + 1];
                for (int i = 0; i < width; i++) to[i] += even[i] * we + odd[i] * wo;
                vec e = all(0), d = all(0);
                for (int i = 0; i < padded; i += LANES) {
                    vec v = load(x + c * padded + i);
                    e += v * load(even + i);
                    d += v * load(odd + i);
                }
                sums[k] += e;
                sums[k + 1] += d;
            }
            if (r % 2)
                for (int i = 0; i < width; i++)
                    to[i] = x[c * padded + i] <= 0 ? 0 : to[i];
        }
    }
    for (int k = 0; k < channels * channels * 4; k++) by_weight[k] += total(sums[k]);
    for (int o = 0; o < channels; o++) by_bias[o] += total(bias_sums[o]);
}

/* ---- A stream ----------------------------------------------------------------------------- */

/* First row, rows, first column, columns of each stage, in pixels of its own resolution. */
typedef struct { int row, rows, col, cols; } Region;
enum { ENTER, DOWN1, DOWN2, UP2, UP1, STAGES };

/* Weights and biases, one after another, folded; in the order of the enumeration. */
enum { E1, E2, D1, D2, Q1, Q2, U1, U2, V1, V2, CONVS };
static const int WIDTHS[CONVS][2] = {{0, 8},   {8, 8},   {8, 16}, {16, 16}, {16, 16},
                                     {16, 16}, {32, 8},  {8, 8},  {16, 8},  {8, 8}};

typedef struct { ptrdiff_t weight, bias; } Place;

static void places(int channels, Place conv[CONVS], Place *raise2, Place *raise1)
{
    ptrdiff_t at = 0;
    for (int k = 0; k < CONVS; k++) {
        int in = k == E1 ? channels : WIDTHS[k][0], out = WIDTHS[k][1];
        conv[k] = (Place){at, at + out * in * 9};
        at += out * in * 9 + out;
    }
    *raise2 = (Place){at, at + 16 * 16 * 4};
    at += 16 * 16 * 4 + 16;
    *raise1 = (Place){at, at + 8 * 8 * 4};
}

typedef struct {
    Planes x, e1, full, pooled1, d1, half, pooled2, q1, quarter, joined2, u1, half_up, joined1, v1,
        features;
} Kept;

static Planes stage(float **arena, const Region *regions, int which, int channels)
{
    return planes(arena, channels, regions[which].rows, regions[which].cols);
}

/* Of all maps that are made; nobody asks for the slope by what was given. */
static Kept slopes_in(float **arena, const Region *g)
{
    Kept k = {0};
    k.e1 = stage(arena, g, ENTER, 8);
    k.full = stage(arena, g, ENTER, 8);
    k.pooled1 = stage(arena, g, DOWN1, 8);
    k.d1 = stage(arena, g, DOWN1, 16);
    k.half = stage(arena, g, DOWN1, 16);
    k.pooled2 = stage(arena, g, DOWN2, 16);
    k.q1 = stage(arena, g, DOWN2, 16);
    k.quarter = stage(arena, g, DOWN2, 16);
    k.joined2 = stage(arena, g, UP2, 32);
    k.u1 = stage(arena, g, UP2, 8);
    k.half_up = stage(arena, g, UP2, 8);
    k.joined1 = stage(arena, g, UP1, 16);
    k.v1 = stage(arena, g, UP1, 8);
    k.features = stage(arena, g, UP1, 8);
    return k;
}

static Kept kept_in(float **arena, int channels, const Region *g)
{
    Planes given = stage(arena, g, ENTER, channels);
    Kept k = slopes_in(arena, g);
    k.x = given;
    return k;
}

#define SCRATCH (LARGEST * 16 + 4096 * 16)

static ptrdiff_t row_scratch(const Region *g) { return 64 * (g[ENTER].cols + 2 * 16); }

/* Floats that a piece needs: what is kept of both streams, and what one of them passes through. */
void popcorn_sizes(const int32_t *regions, int64_t *kept1, int64_t *kept2, int64_t *passing)
{
    const Region *g = (const Region *)regions;
    float *begin = 0, *end = 0;
    kept_in(&end, 2, g);
    *kept1 = end - begin;
    end = 0;
    kept_in(&end, 4, g);
    *kept2 = end - begin;
    end = 0;
    slopes_in(&end, g);
    *passing = (end - begin) + SCRATCH + row_scratch(g);
}

/* x: (channels, height, width), whole window. Returns where the features are, in floats from
 * `kept`, with the distances of their rows and channels. */
void popcorn_forward(const float *weights, const float *x, int channels, int height, int width,
                     const int32_t *regions, float *kept, float *passing, int64_t *features)
{
    const Region *g = (const Region *)regions;
    Place conv[CONVS], raise2, raise1;
    places(channels, conv, &raise2, &raise1);
    float *arena = kept, *scratch = passing;
    Kept k = kept_in(&arena, channels, g);
    for (int c = 0; c < channels; c++)
        for (int r = 0; r < k.x.height; r++)
            memcpy(pixel(k.x, c, r, 0),
                   x + ((ptrdiff_t)c * height + g[ENTER].row + r) * width + g[ENTER].col,
                   k.x.width * sizeof(float));
    clear_border(k.x);
#define CONVOLVE(which, from, to)                                                                  \
    packed(weights + conv[which].weight, k.to.channels, k.from.channels, 0, scratch);              \
    convolve(k.from, scratch, weights + conv[which].bias, 0, k.to)
    CONVOLVE(E1, x, e1);
    CONVOLVE(E2, e1, full);
    pool(k.full, 2 * g[DOWN1].row - g[ENTER].row, 2 * g[DOWN1].col - g[ENTER].col, k.pooled1);
    CONVOLVE(D1, pooled1, d1);
    CONVOLVE(D2, d1, half);
    pool(k.half, 2 * g[DOWN2].row - g[DOWN1].row, 2 * g[DOWN2].col - g[DOWN1].col, k.pooled2);
    CONVOLVE(Q1, pooled2, q1);
    CONVOLVE(Q2, q1, quarter);
    join(k.half, g[UP2].row - g[DOWN1].row, g[UP2].col - g[DOWN1].col, k.joined2);
    raise(k.quarter, g[UP2].row / 2 - g[DOWN2].row, g[UP2].col / 2 - g[DOWN2].col,
          weights + raise2.weight, weights + raise2.bias, some(k.joined2, 16, 16), scratch);
    CONVOLVE(U1, joined2, u1);
    CONVOLVE(U2, u1, half_up);
    join(k.full, g[UP1].row - g[ENTER].row, g[UP1].col - g[ENTER].col, k.joined1);
    raise(k.half_up, g[UP1].row / 2 - g[UP2].row, g[UP1].col / 2 - g[UP2].col,
          weights + raise1.weight, weights + raise1.bias, some(k.joined1, 8, 8), scratch);
    CONVOLVE(V1, joined1, v1);
    CONVOLVE(V2, v1, features);
    features[0] = k.features.at - kept;
    features[1] = k.features.row;
    features[2] = k.features.plane;
}

/* Add the gradient by the weights. `by_features`: (pixels, 8) of the wanted pixels, which lie at
 * `pixels` of the features' plane. */
void popcorn_backward(const float *weights, int channels, const int32_t *regions, float *kept,
                      float *passing, const float *by_features, const int32_t *pixels, int64_t count,
                      float *by)
{
    const Region *g = (const Region *)regions;
    Place conv[CONVS], raise2, raise1;
    places(channels, conv, &raise2, &raise1);
    float *arena = kept, *scratch = passing;
    Kept k = kept_in(&arena, channels, g);
    arena = passing + SCRATCH + row_scratch(g);
    Kept s = slopes_in(&arena, g);
    clear(s.features);
    for (int c = 0; c < 8; c++) {
        float *to = s.features.at + c * s.features.plane;
        const float *of = k.features.at + c * k.features.plane;
        for (int64_t i = 0; i < count; i++)
            to[pixels[i]] = of[pixels[i]] <= 0 ? 0 : by_features[i * 8 + c];
    }
#define WEIGHTS(which, from, to)                                                                   \
    by_weights(k.from, s.to, by + conv[which].weight, by + conv[which].bias, scratch)
#define CONVOLVE_BACK(which, from, to, mask)                                                       \
    WEIGHTS(which, from, to);                                                                      \
    packed(weights + conv[which].weight, k.to.channels, k.from.channels, 1, scratch);              \
    convolve(s.to, scratch, 0, mask, s.from)
    CONVOLVE_BACK(V2, v1, features, &k.v1);
    CONVOLVE_BACK(V1, joined1, v1, 0);
    clear(s.half_up);
    unraise(some(s.joined1, 8, 8), k.half_up, g[UP1].row / 2 - g[UP2].row,
            g[UP1].col / 2 - g[UP2].col, weights + raise1.weight, by + raise1.weight,
            by + raise1.bias, s.half_up, scratch);
    CONVOLVE_BACK(U2, u1, half_up, &k.u1);
    CONVOLVE_BACK(U1, joined2, u1, 0);
    clear(s.quarter);
    unraise(some(s.joined2, 16, 16), k.quarter, g[UP2].row / 2 - g[DOWN2].row,
            g[UP2].col / 2 - g[DOWN2].col, weights + raise2.weight, by + raise2.weight,
            by + raise2.bias, s.quarter, scratch);
    CONVOLVE_BACK(Q2, q1, quarter, &k.q1);
    CONVOLVE_BACK(Q1, pooled2, q1, 0);
    clear(s.half);
    unjoin(s.joined2, k.half, g[UP2].row - g[DOWN1].row, g[UP2].col - g[DOWN1].col, s.half);
    unpool(s.pooled2, k.half, 2 * g[DOWN2].row - g[DOWN1].row, 2 * g[DOWN2].col - g[DOWN1].col,
           s.half);
    CONVOLVE_BACK(D2, d1, half, &k.d1);
    CONVOLVE_BACK(D1, pooled1, d1, 0);
    clear(s.full);
    unjoin(s.joined1, k.full, g[UP1].row - g[ENTER].row, g[UP1].col - g[ENTER].col, s.full);
    unpool(s.pooled1, k.full, 2 * g[DOWN1].row - g[ENTER].row, 2 * g[DOWN1].col - g[ENTER].col,
           s.full);
    CONVOLVE_BACK(E2, e1, full, &k.e1);
    WEIGHTS(E1, x, e1);
}

/* ---- The head ----------------------------------------------------------------------------- */

#define CHUNK 256
#define PITCH (CHUNK + 16)
#define FEATURES 16
#define WIDE 64

/* (out, in) weights and a bias after another: 16-64-64-64-1. */
typedef struct { const float *w1, *b1, *w2, *b2, *w3, *b3, *w4, *b4; } Head;

static Head head_at(const float *w)
{
    Head h;
    h.w1 = w;
    h.b1 = h.w1 + WIDE * FEATURES;
    h.w2 = h.b1 + WIDE;
    h.b2 = h.w2 + WIDE * WIDE;
    h.w3 = h.b2 + WIDE;
    h.b3 = h.w3 + WIDE * WIDE;
    h.w4 = h.b3 + WIDE;
    h.b4 = h.w4 + WIDE;
    return h;
}

typedef float Rows[WIDE][PITCH];

/* As `packed`, of (out, in) weights. */
static void packed_dense(const float *w, int out, int in, int back, float *to)
{
    for (int o = 0; o < out; o++)
        for (int i = 0; i < in; i++)
            if (back)
                to[(i / OUT * out + o) * OUT + i % OUT] = w[o * in + i];
            else
                to[(o / OUT * in + i) * OUT + o % OUT] = w[o * in + i];
}

/* As `convolve`, of a chunk's pixels. */
static void dense(int in, int out, float (*x)[PITCH], const float *w, const float *bias,
                  float (*mask)[PITCH], float (*y)[PITCH])
{
    for (int i = 0; i < CHUNK; i += STEP)
        for (int block = 0; block < out; block += OUT) {
            vec sum[OUT][2];
            for (int o = 0; o < OUT; o++) sum[o][0] = sum[o][1] = all(bias ? bias[block + o] : 0);
            const float *weight = w + block * in;
            for (int c = 0; c < in; c++, weight += OUT) {
                vec a = load(x[c] + i), b = load(x[c] + i + LANES);
#pragma GCC unroll 8
                for (int o = 0; o < OUT; o++) {
                    sum[o][0] += a * weight[o];
                    sum[o][1] += b * weight[o];
                }
            }
            for (int o = 0; o < OUT; o++)
                for (int half = 0; half < 2; half++) {
                    vec v = sum[o][half];
                    int at = i + half * LANES;
                    if (bias) v = where_positive(v, v);
                    if (mask) v = where_positive(load(mask[block + o] + at), v);
                    store(y[block + o] + at, v);
                }
        }
}

/* Add a chunk's part of a layer's gradient: sums (out, in) of vectors, and (out) of them. */
static void dense_by_weights(int in, int out, float (*x)[PITCH], float (*slope)[PITCH], vec *sums,
                             vec *bias_sums)
{
    for (int block = 0; block < out; block += OUT)
        for (int c = 0; c < in; c += 2) {
            vec sum[OUT][2];
            memset(sum, 0, sizeof sum);
            for (int i = 0; i < CHUNK; i += LANES) {
                vec a = load(x[c] + i), b = load(x[c + 1] + i);
#pragma GCC unroll 8
                for (int o = 0; o < OUT; o++) {
                    vec by = load(slope[block + o] + i);
                    HOLD(by);
                    sum[o][0] += a * by;
                    sum[o][1] += b * by;
                }
            }
            for (int o = 0; o < OUT; o++) {
                sums[(block + o) * in + c] += sum[o][0];
                sums[(block + o) * in + c + 1] += sum[o][1];
            }
        }
    for (int o = 0; o < out; o++)
        for (int i = 0; i < CHUNK; i += LANES) bias_sums[o] += load(slope[o] + i);
}

typedef struct {
    float x[FEATURES][PITCH];
    Rows h1, h2, h3, s3, s2, s1;
    float sx[FEATURES][PITCH];
    float occupancy[PITCH], score[PITCH], slope[PITCH];
    float p1[WIDE * FEATURES], p2[WIDE * WIDE], p3[WIDE * WIDE];
    float q1[WIDE * FEATURES], q2[WIDE * WIDE], q3[WIDE * WIDE];
    vec by1[WIDE * FEATURES], by2[WIDE * WIDE], by3[WIDE * WIDE], by4[WIDE];
    vec bias1[WIDE], bias2[WIDE], bias3[WIDE], bias4;
} HeadRoom;

int64_t popcorn_head_floats(void) { return sizeof(HeadRoom) / sizeof(float) + 16; }

/* A chunk of pixels from features to occupancy. Pixels that are not there count nothing. */
static int chunk_forward(HeadRoom *m, Head h, const float *const at[2], const int64_t plane[2],
                         const int32_t *pixels, int64_t begin, int64_t count)
{
    int n = count - begin < CHUNK ? (int)(count - begin) : CHUNK;
    for (int c = 0; c < FEATURES; c++) {
        const float *from = at[c / 8] + c % 8 * plane[c / 8];
        for (int i = 0; i < n; i++) m->x[c][i] = from[pixels[begin + i]];
        memset(m->x[c] + n, 0, (CHUNK - n) * sizeof(float));
    }
    dense(FEATURES, WIDE, m->x, m->p1, h.b1, 0, m->h1);
    dense(WIDE, WIDE, m->h1, m->p2, h.b2, 0, m->h2);
    dense(WIDE, WIDE, m->h2, m->p3, h.b3, 0, m->h3);
    for (int i = 0; i < CHUNK; i += LANES) {
        vec sum = all(h.b4[0]);
        for (int c = 0; c < WIDE; c++) sum += load(m->h3[c] + i) * h.w4[c];
        store(m->occupancy + i, where_positive(sum, sum));
    }
    return n;
}

static void pack_forward(HeadRoom *m, Head h)
{
    packed_dense(h.w1, WIDE, FEATURES, 0, m->p1);
    packed_dense(h.w2, WIDE, WIDE, 0, m->p2);
    packed_dense(h.w3, WIDE, WIDE, 0, m->p3);
}

/* Occupancy of each pixel, and the sums of people and occupancy. */
void popcorn_head_forward(const float *weights, const float *at1, const float *at2, int64_t plane1,
                          int64_t plane2, const int32_t *pixels, const float *score, int64_t count,
                          float *room, float *occupancy, double *sums)
{
    HeadRoom *m = (HeadRoom *)room;
    Head h = head_at(weights);
    const float *const at[2] = {at1, at2};
    const int64_t plane[2] = {plane1, plane2};
    pack_forward(m, h);
    sums[0] = sums[1] = 0;
    for (int64_t begin = 0; begin < count; begin += CHUNK) {
        int n = chunk_forward(m, h, at, plane, pixels, begin, count);
        double people = 0, all_occupancy = 0;
        for (int i = 0; i < n; i++) {
            occupancy[begin + i] = m->occupancy[i];
            people += (double)m->occupancy[i] * score[begin + i];
            all_occupancy += m->occupancy[i];
        }
        sums[0] += people;
        sums[1] += all_occupancy;
    }
}

/* Add the gradient by the weights; the slopes by both streams' features, (pixels, 8) each. */
void popcorn_head_backward(const float *weights, const float *at1, const float *at2, int64_t plane1,
                           int64_t plane2, const int32_t *pixels, const float *score, int64_t count,
                           float by_people, float by_occupancy, float *room, float *by1, float *by2,
                           float *by)
{
    HeadRoom *m = (HeadRoom *)room;
    Head h = head_at(weights);
    const float *const at[2] = {at1, at2};
    const int64_t plane[2] = {plane1, plane2};
    pack_forward(m, h);
    packed_dense(h.w1, WIDE, FEATURES, 1, m->q1);
    packed_dense(h.w2, WIDE, WIDE, 1, m->q2);
    packed_dense(h.w3, WIDE, WIDE, 1, m->q3);
    memset(m->by1, 0, (char *)(m + 1) - (char *)m->by1);
    for (int64_t begin = 0; begin < count; begin += CHUNK) {
        int n = chunk_forward(m, h, at, plane, pixels, begin, count);
        memset(m->slope, 0, sizeof m->slope);
        for (int i = 0; i < n; i++)
            m->slope[i] = m->occupancy[i] <= 0 ? 0 : by_people * score[begin + i] + by_occupancy;
        for (int i = 0; i < CHUNK; i += LANES) {
            vec by_last = load(m->slope + i);
            m->bias4 += by_last;
            for (int c = 0; c < WIDE; c++) {
                vec v = load(m->h3[c] + i);
                m->by4[c] += v * by_last;
                store(m->s3[c] + i, where_positive(v, by_last * h.w4[c]));
            }
        }
        dense_by_weights(WIDE, WIDE, m->h2, m->s3, m->by3, m->bias3);
        dense(WIDE, WIDE, m->s3, m->q3, 0, m->h2, m->s2);
        dense_by_weights(WIDE, WIDE, m->h1, m->s2, m->by2, m->bias2);
        dense(WIDE, WIDE, m->s2, m->q2, 0, m->h1, m->s1);
        dense_by_weights(FEATURES, WIDE, m->x, m->s1, m->by1, m->bias1);
        dense(WIDE, FEATURES, m->s1, m->q1, 0, 0, m->sx);
        for (int i = 0; i < n; i++)
            for (int c = 0; c < 8; c++) {
                by1[(begin + i) * 8 + c] = m->sx[c][i];
                by2[(begin + i) * 8 + c] = m->sx[8 + c][i];
            }
    }
#define ADD(sums, many)                                                                            \
    for (int k = 0; k < (many); k++) *by++ += total((sums)[k])
    ADD(m->by1, WIDE * FEATURES);
    ADD(m->bias1, WIDE);
    ADD(m->by2, WIDE * WIDE);
    ADD(m->bias2, WIDE);
    ADD(m->by3, WIDE * WIDE);
    ADD(m->bias3, WIDE);
    ADD(m->by4, WIDE);
    ADD(&m->bias4, 1);
}
