/* The networks over a window of canvas, on one core: both U-Nets row by row, and the head.
 *
 * A row of a map is held as vectors of pixels that lie apart: lane l of vector i is column
 * l * length + i, so that a row is LANES parts of `length` columns side by side. A neighbouring
 * column is the next vector, halving and doubling need no shuffling, and every load is aligned. Only
 * the vectors beyond both ends are copies, moved by a lane. Rows of each map are kept in a ring, no
 * longer than until the last one that looks at them, so that intermediate maps stay in the cache.
 *
 * Where a canvas ends, convolutions see zeros: rows that do not exist are a row of zeros, columns
 * that do not exist are masked. Each pixel's sums are taken in one order, wherever it lies in a
 * window and whichever kernel takes it, so that its value does not depend on the window.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

/* Features that a kernel makes at once, from at most MOST vectors of pixels: what registers hold. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define OUT 8
#else
#define OUT 4
#endif
#define MOST 3

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))

INLINE vec load(const float *from) { return *(const vec *)from; }
INLINE void store(float *to, vec v) { *(vec *)to = v; }
/* Less nothing, not nothing more: that would have to be computed, for the sake of -0. */
INLINE vec all(float v) { return v - (vec){0}; }
INLINE vec positive(vec v) { return (vec)((ivec)v & ~(v <= 0)); }
INLINE vec larger(vec a, vec b)
{
    ivec is = a > b;
    return (vec)(((ivec)a & is) | ((ivec)b & ~is));
}

int popcorn_lanes(void) { return LANES; }
int popcorn_outputs(void) { return OUT; }

/* ---- Maps --------------------------------------------------------------------------------- */

/* Rows of a map, those from `first` to before `done` computed, of `rows` that there are, and the
 * last `kept` of them held. */
typedef struct {
    float *at;
    int channels, length, rows, kept, first, done;
    ptrdiff_t channel, row;
    const float *mask, *zeros;
} Map;

/* Column 0 of a row's first channel. */
INLINE float *own_row(const Map *m, int row) { return m->at + row % m->kept * m->row; }
INLINE const float *row_of(const Map *m, int row)
{
    return row < m->first || row >= m->rows ? m->zeros : own_row(m, row);
}

/* What lies beyond both ends of each of LANES parts: the ends of its neighbours. */
static void join_parts(float *row, int channels, int length)
{
    for (int c = 0; c < channels; c++, row += (length + 2) * LANES) {
        const float *last = row + (length - 1) * LANES;
        float *before = row - LANES, *after = row + length * LANES;
        before[0] = after[LANES - 1] = 0;
        memcpy(before + 1, last, (LANES - 1) * sizeof(float));
        memcpy(after, row + 1, (LANES - 1) * sizeof(float));
    }
}

/* ---- Kernels ------------------------------------------------------------------------------ */

/* Weights come as kernels read them: for each OUT of the outputs, by input, tap, output. */

INLINE void taps(const int many, const int step, vec sum[OUT][MOST], const float *const rows[3],
                 int channels, ptrdiff_t channel, int at, const float *w)
{
    for (int c = 0; c < channels; c++)
        for (int ky = 0; ky < 3; ky++) {
            const float *from = rows[ky] + c * channel + (at - 1) * LANES;
#pragma GCC unroll 3
            for (int kx = 0; kx < 3; kx++, w += OUT) {
                vec x[MOST];
#pragma GCC unroll 3
                for (int v = 0; v < many; v++) x[v] = load(from + (kx + v * step) * LANES);
#pragma GCC unroll 8
                for (int o = 0; o < OUT; o++) {
                    vec weight = all(w[o]);
#pragma GCC unroll 3
                    for (int v = 0; v < many; v++) sum[o][v] += x[v] * weight;
                }
            }
        }
}

/* Of a map that is doubled on the way: two of its rows by two of its columns. */
INLINE void doubled_taps(const int many, vec sum[OUT][MOST], const float *const rows[2],
                         int channels, ptrdiff_t channel, int at, const float *w)
{
    for (int c = 0; c < channels; c++)
        for (int k = 0; k < 4; k++, w += OUT) {
            const float *from = rows[k / 2] + c * channel + (at + k % 2) * LANES;
            vec x[MOST];
#pragma GCC unroll 3
            for (int v = 0; v < many; v++) x[v] = load(from + v * LANES);
#pragma GCC unroll 8
            for (int o = 0; o < OUT; o++) {
                vec weight = all(w[o]);
#pragma GCC unroll 3
                for (int v = 0; v < many; v++) sum[o][v] += x[v] * weight;
            }
        }
}

INLINE void begin(const int many, vec sum[OUT][MOST], const float *bias)
{
#pragma GCC unroll 8
    for (int o = 0; o < OUT; o++)
#pragma GCC unroll 3
        for (int v = 0; v < many; v++) sum[o][v] = all(bias[o]);
}

INLINE void end(const int many, const int step, vec sum[OUT][MOST], const float *mask, float *to,
                ptrdiff_t channel)
{
#pragma GCC unroll 8
    for (int o = 0; o < OUT; o++)
#pragma GCC unroll 3
        for (int v = 0; v < many; v++) {
            ivec there = (ivec)load(mask + v * step * LANES);
            store(to + o * channel + v * step * LANES,
                  (vec)((ivec)positive(sum[o][v]) & there));
        }
}

/* A row's vectors, MOST at a time; never a single one, which would wait for itself, if it can be. */
#define IN_PARTS(length, DO)                                                                       \
    for (int i = 0, left = (length); left > 0;) {                                                  \
        int many = left == 4 || left == 2 ? 2 : left == 1 ? 1 : 3;                                 \
        if (many == 3) { DO(3); }                                                                  \
        else if (many == 2) { DO(2); }                                                             \
        else { DO(1); }                                                                            \
        i += many;                                                                                 \
        left -= many;                                                                              \
    }

/* ReLU of a 3 x 3 convolution, a row of it. */
static void convolve(const Map *x, Map *y, const float *w, const float *bias)
{
    int row = y->done++;
    const float *rows[3] = {row_of(x, row - 1), row_of(x, row), row_of(x, row + 1)};
    float *to = own_row(y, row);
    ptrdiff_t size = x->channels * 9 * OUT;
#define CONVOLVE(MANY)                                                                             \
    for (int block = 0; block < y->channels / OUT; block++) {                                      \
        vec sum[OUT][MOST];                                                                        \
        begin(MANY, sum, bias + block * OUT);                                                      \
        taps(MANY, 1, sum, rows, x->channels, x->channel, i, w + block * size);                    \
        end(MANY, 1, sum, y->mask + i * LANES, to + block * OUT * y->channel + i * LANES,          \
            y->channel);                                                                           \
    }
    IN_PARTS(y->length, CONVOLVE)
    join_parts(to, y->channels, y->length);
}

/* ReLU of a 3 x 3 convolution of a map and a doubled one together, a row of it. The doubling and the
 * convolution are one for what comes from below; its bias is that of a channel of ones. */
static void convolve_joined(const Map *x, const Map *below, Map *y, const float *w,
                            const float *w_below, const float *bias)
{
    int row = y->done++, odd = row % 2;
    const float *rows[3] = {row_of(x, row - 1), row_of(x, row), row_of(x, row + 1)};
    const float *under[2] = {row_of(below, row / 2 - 1 + odd), row_of(below, row / 2 + odd)};
    float *to = own_row(y, row);
    ptrdiff_t size = x->channels * 9 * OUT, size_below = below->channels * 4 * OUT;
    int blocks = y->channels / OUT;
    w_below += odd * 2 * blocks * size_below;
    for (int right = 0; right < 2; right++) {
#define CONVOLVE_JOINED(MANY)                                                                      \
    for (int block = 0; block < blocks; block++) {                                                 \
        vec sum[OUT][MOST];                                                                        \
        int at = 2 * i + right;                                                                    \
        begin(MANY, sum, bias + block * OUT);                                                      \
        taps(MANY, 2, sum, rows, x->channels, x->channel, at, w + block * size);                   \
        doubled_taps(MANY, sum, under, below->channels, below->channel, i - 1 + right,             \
                     w_below + (right * blocks + block) * size_below);                             \
        end(MANY, 2, sum, y->mask + at * LANES, to + block * OUT * y->channel + at * LANES,        \
            y->channel);                                                                           \
    }
        IN_PARTS(y->length / 2, CONVOLVE_JOINED)
    }
    join_parts(to, y->channels, y->length);
}

/* Largest of each two by two, a row of it. */
static void halve(const Map *x, Map *y)
{
    int row = y->done++;
    const float *up = row_of(x, 2 * row), *down = row_of(x, 2 * row + 1);
    float *to = own_row(y, row);
    for (int c = 0; c < y->channels; c++)
        for (int i = 0; i < y->length; i++) {
            const float *a = up + c * x->channel + 2 * i * LANES;
            const float *b = down + c * x->channel + 2 * i * LANES;
            vec most = larger(larger(load(a), load(a + LANES)), larger(load(b), load(b + LANES)));
            store(to + c * y->channel + i * LANES,
                  (vec)((ivec)most & (ivec)load(y->mask + i * LANES)));
        }
    join_parts(to, y->channels, y->length);
}

/* ---- A stream ----------------------------------------------------------------------------- */

enum { E1, FULL, P1, D1, HALF, P2, Q1, QUARTER, U1, UP, V1, FEATURES, MAPS };

typedef struct {
    Map given, map[MAPS];
    const float *w[MAPS], *below[MAPS], *bias[MAPS];
} Stream;

/* Channels and level of each map, and how many of its rows are looked at once it has a new one. */
static const struct { int channels, level, kept; } KINDS[MAPS] = {
    [E1] = {8, 0, 4},       [FULL] = {8, 0, 24}, [P1] = {8, 1, 4},       [D1] = {16, 1, 4},
    [HALF] = {16, 1, 9},    [P2] = {16, 2, 4},   [Q1] = {16, 2, 4},      [QUARTER] = {17, 2, 4},
    [U1] = {8, 1, 4},       [UP] = {9, 1, 4},    [V1] = {8, 0, 4},       [FEATURES] = {8, 0, 1}};

/* Floats of a stream's weights: of each convolution the weight, that of what is below, the bias. */
static const float *weights_at(Stream *s, const float *w, int channels)
{
    static const int order[][4] = {{E1, 0, 0, 8},       {FULL, 8, 0, 8},  {D1, 8, 0, 16},
                                   {HALF, 16, 0, 16},   {Q1, 16, 0, 16},  {QUARTER, 16, 0, 16},
                                   {U1, 16, 17, 8},     {UP, 8, 0, 8},    {V1, 8, 9, 8},
                                   {FEATURES, 8, 0, 8}};
    for (size_t k = 0; k < sizeof order / sizeof *order; k++) {
        int which = order[k][0], in = which == E1 ? channels : order[k][1], out = order[k][3];
        s->w[which] = w;
        s->below[which] = w += in * 9 * out;
        s->bias[which] = w += order[k][2] * 16 * out;
        w += out;
    }
    return w;
}

static int clip(int row) { return row > 0 ? row : 0; }

/* The first row of each map that is needed for the features from a row on. */
static void first_rows(int row, int first[MAPS])
{
    first[FEATURES] = row;
    first[V1] = clip(row - 1);
    first[UP] = clip((first[V1] + 1) / 2 - 1);
    first[U1] = clip(first[UP] - 1);
    first[QUARTER] = clip((first[U1] + 1) / 2 - 1);
    first[Q1] = clip(first[QUARTER] - 1);
    first[P2] = clip(first[Q1] - 1);
    first[HALF] = 2 * first[P2];
    first[D1] = clip(first[HALF] - 1);
    first[P1] = clip(first[D1] - 1);
    first[FULL] = 2 * first[P1];
    first[E1] = clip(first[FULL] - 1);
}

/* Compute a map's rows up to one, and whatever that needs. */
static void reach(Stream *s, int which, int row)
{
    Map *m = &s->map[which], *of = s->map;
    if (row >= m->rows) row = m->rows - 1;
    while (m->done <= row) {
        int next = m->done;
#define CONVOLVED(FROM)                                                                            \
    reach(s, FROM, next + 1);                                                                      \
    convolve(&of[FROM], m, s->w[which], s->bias[which])
#define JOINED(FROM, BELOW)                                                                        \
    reach(s, BELOW, (next + 1) / 2);                                                               \
    reach(s, FROM, next + 1);                                                                      \
    convolve_joined(&of[FROM], &of[BELOW], m, s->w[which], s->below[which], s->bias[which])
        switch (which) {
        case E1: convolve(&s->given, m, s->w[E1], s->bias[E1]); break;
        case FULL: CONVOLVED(E1); break;
        case P1: reach(s, FULL, 2 * next + 1); halve(&of[FULL], m); break;
        case D1: CONVOLVED(P1); break;
        case HALF: CONVOLVED(D1); break;
        case P2: reach(s, HALF, 2 * next + 1); halve(&of[HALF], m); break;
        case Q1: CONVOLVED(P2); break;
        case QUARTER: CONVOLVED(Q1); break;
        case U1: JOINED(HALF, QUARTER); break;
        case UP: CONVOLVED(U1); break;
        case V1: JOINED(FULL, UP); break;
        default: CONVOLVED(V1);
        }
    }
}

/* ---- The head ----------------------------------------------------------------------------- */

#define IN 16
#define WIDE 64
#define AT_ONCE (MOST * LANES)

/* Wanted pixels, which wait until there are enough of them for the head. */
typedef struct {
    float x[IN][AT_ONCE + LANES], h1[WIDE][AT_ONCE], h2[WIDE][AT_ONCE];
    ptrdiff_t places[AT_ONCE + LANES];
    int count;
} Waiting;

INLINE void dense(int in, int out, const float *x, ptrdiff_t pitch, const float *w,
                  const float *bias, float (*y)[AT_ONCE])
{
    for (int block = 0; block < out; block += OUT) {
        vec sum[OUT][MOST];
        begin(MOST, sum, bias + block);
        for (int c = 0; c < in; c++, w += OUT) {
            vec a[MOST];
#pragma GCC unroll 3
            for (int v = 0; v < MOST; v++) a[v] = load(x + c * pitch + v * LANES);
#pragma GCC unroll 8
            for (int o = 0; o < OUT; o++) {
                vec weight = all(w[o]);
#pragma GCC unroll 3
                for (int v = 0; v < MOST; v++) sum[o][v] += a[v] * weight;
            }
        }
#pragma GCC unroll 8
        for (int o = 0; o < OUT; o++)
#pragma GCC unroll 3
            for (int v = 0; v < MOST; v++) store(y[block + o] + v * LANES, positive(sum[o][v]));
    }
}

/* Occupancy of those that wait, at most AT_ONCE; the others are the first from then on. */
static void run_head(Waiting *m, const float *w, float *found)
{
    const float *w2 = w + WIDE * IN + WIDE, *w3 = w2 + WIDE * WIDE + WIDE;
    const float *w4 = w3 + WIDE * WIDE + WIDE;
    float out[AT_ONCE];
    dense(IN, WIDE, m->x[0], AT_ONCE + LANES, w, w2 - WIDE, m->h1);
    dense(WIDE, WIDE, m->h1[0], AT_ONCE, w2, w3 - WIDE, m->h2);
    dense(WIDE, WIDE, m->h2[0], AT_ONCE, w3, w4 - WIDE, m->h1);
    for (int v = 0; v < MOST; v++) {
        vec sum = all(w4[WIDE]);
        for (int c = 0; c < WIDE; c++) sum += load(m->h1[c] + v * LANES) * all(w4[c]);
        store(out + v * LANES, positive(sum));
    }
    int done = m->count < AT_ONCE ? m->count : AT_ONCE;
    for (int i = 0; i < done; i++) found[m->places[i]] = out[i];
    m->count -= done;
    memcpy(m->places, m->places + AT_ONCE, LANES * sizeof *m->places);
    for (int c = 0; c < IN; c++) store(m->x[c], load(m->x[c] + AT_ONCE));
}

/* The lanes of a vector whose bits are set, side by side. */
INLINE void together(float *to, vec v, uint32_t bits)
{
#if defined(__AVX512F__)
    store(to, (vec)_mm512_maskz_compress_ps((__mmask16)bits, (__m512)v));
#else
    for (int l = 0; l < LANES; l++)
        if (bits >> l & 1) *to++ = v[l];
#endif
}

/* ---- A window ----------------------------------------------------------------------------- */

/* Its sides, and the first row and column, rows and columns of its core. */
typedef struct { int height, width, row, col, rows, cols; } Window;

/* What all networks of a window share. */
typedef struct {
    const Window *window;
    int length;
    float *mask[3], *zeros, *given;
    uint32_t *wanted;
} Shared;

static int halved(int side, int level) { return level ? halved(side / 2, level - 1) : side; }

static float *shared_in(float *arena, Shared *s, const Window *window)
{
    s->window = window;
    s->length = (window->width + 4 * LANES - 1) / (4 * LANES) * 4;
    ptrdiff_t line = (s->length + 2) * LANES;
    for (int level = 0; level < 3; level++, arena += s->length * LANES) s->mask[level] = arena;
    s->zeros = arena, arena += 17 * line;
    s->given = arena, arena += window->height * 6 * line;
    s->wanted = (uint32_t *)arena, arena += window->rows * s->length;
    return arena + (-(uintptr_t)arena / sizeof(float)) % 16;
}

static float *stream_in(float *arena, Stream *s, const Shared *with, int first_channel,
                        int channels)
{
    const Window *window = with->window;
    int first[MAPS];
    ptrdiff_t line = (with->length + 2) * LANES;
    first_rows(window->row, first);
    s->given = (Map){with->given + first_channel * line + LANES,
                     channels, with->length, window->height, window->height, 0, window->height,
                     line, 6 * line, 0, with->zeros + LANES};
    for (int k = 0; k < MAPS; k++) {
        int level = KINDS[k].level, length = with->length >> level;
        s->map[k] = (Map){arena + LANES, KINDS[k].channels, length,
                          halved(window->height, level), KINDS[k].kept, first[k], first[k],
                          (length + 2) * LANES, KINDS[k].channels * (length + 2) * LANES,
                          with->mask[level], with->zeros + LANES};
        arena += KINDS[k].kept * s->map[k].row;
    }
    return arena;
}

/* Floats that a window needs, beside those of the head. */
int64_t popcorn_room(const int32_t *window)
{
    Shared shared;
    Stream stream;
    float *end = shared_in(0, &shared, (const Window *)window);
    end = stream_in(end, &stream, &shared, 0, 2);
    end = stream_in(end, &stream, &shared, 2, 4);
    return (end - (float *)0) + sizeof(Waiting) / sizeof(float) + 32;
}

static void fill_masks(Shared *s)
{
    for (int level = 0; level < 3; level++) {
        int length = s->length >> level, width = halved(s->window->width, level);
        for (int i = 0; i < length; i++)
            for (int l = 0; l < LANES; l++) {
                int32_t bits = l * length + i < width ? -1 : 0;
                memcpy(s->mask[level] + i * LANES + l, &bits, sizeof bits);
            }
    }
    memset(s->zeros, 0, 17 * (s->length + 2) * LANES * sizeof(float));
}

/* The channel of ones, where there are columns, in every row that is kept. */
static void fill_ones(Map *m)
{
    for (int r = 0; r < m->kept; r++) {
        float *to = m->at + r * m->row + (m->channels - 1) * m->channel;
        for (int i = 0; i < m->length; i++)
            store(to + i * LANES, (vec)((ivec)all(1) & (ivec)load(m->mask + i * LANES)));
        join_parts(to, 1, m->length);
    }
}

static void fill_given(Shared *s, const float *x, ptrdiff_t plane, ptrdiff_t pitch)
{
    const Window *window = s->window;
    float *to = s->given + LANES;
    for (int r = 0; r < window->height; r++)
        for (int c = 0; c < 6; c++, to += (s->length + 2) * LANES) {
            const float *from = x + c * plane + r * pitch;
            for (int l = 0; l < LANES; l++) {
                int many = window->width - l * s->length;
                many = many < 0 ? 0 : many > s->length ? s->length : many;
                for (int i = 0; i < many; i++) to[i * LANES + l] = from[l * s->length + i];
                for (int i = many; i < s->length; i++) to[i * LANES + l] = 0;
            }
            join_parts(to, 1, s->length);
        }
}

/* Of each vector of the core's rows the lanes that are wanted. */
static void fill_wanted(Shared *s, const uint8_t *wanted, ptrdiff_t pitch)
{
    const Window *window = s->window;
    memset(s->wanted, 0, window->rows * s->length * sizeof *s->wanted);
    for (int r = 0; r < window->rows; r++, wanted += pitch)
        for (int c = 0; c < window->cols; c++)
            if (wanted[c]) {
                int at = window->col + c;
                s->wanted[r * s->length + at % s->length] |= (uint32_t)1 << at / s->length;
            }
}

static int any(const uint32_t *bits, int count)
{
    uint32_t all_bits = 0;
    for (int i = 0; i < count; i++) all_bits |= bits[i];
    return all_bits != 0;
}

/* Each wanted pixel of a window's core by each network.
 *
 * x: (6, height, width), distances between planes and rows given, rows without gaps.
 * window: see `Window`. wanted: bytes, (rows, cols) of the core, distance between rows given.
 * weights: of each network both streams, then the head's, or the score's layer.
 * streams: bit 1 the first, bit 2 the second; with a head both.
 * found: (networks, rows, cols), distances given; others than the wanted stay as they are. Without
 * a head what the sigmoid is to be taken of.
 */
void popcorn_window(const float *x, int64_t plane, int64_t pitch, const int32_t *window,
                    const uint8_t *wanted, int64_t wanted_pitch, const float *weights,
                    int64_t per_network, int networks, int streams, int head, float *room,
                    float *found, int64_t found_plane, int64_t found_pitch)
{
    Shared shared;
    Stream stream[2];
    float *arena = shared_in(room, &shared, (const Window *)window);
    const Window *of = shared.window;
    fill_masks(&shared);
    fill_given(&shared, x, plane, pitch);
    fill_wanted(&shared, wanted, wanted_pitch);
    for (int network = 0; network < networks; network++) {
        const float *w = weights + network * per_network;
        float *end = arena, *to = found + network * found_plane;
        for (int s = 0; s < 2; s++) {
            end = stream_in(end, &stream[s], &shared, s ? 2 : 0, s ? 4 : 2);
            w = weights_at(&stream[s], w, s ? 4 : 2);
            fill_ones(&stream[s].map[QUARTER]);
            fill_ones(&stream[s].map[UP]);
        }
        Waiting *waiting = (Waiting *)(end + (-(uintptr_t)end / sizeof(float)) % 16);
        waiting->count = 0;
        for (int r = 0; r < of->rows; r++) {
            const uint32_t *bits = shared.wanted + r * shared.length;
            if (!any(bits, shared.length)) continue;
            const float *features[2];
            for (int s = 0; s < 2; s++) {
                Map *last = &stream[s].map[FEATURES];
                last->done = of->row + r;
                if (streams >> s & 1) reach(&stream[s], FEATURES, of->row + r);
                features[s] = own_row(last, of->row + r);
            }
            ptrdiff_t step = stream[0].map[FEATURES].channel;
            for (int i = 0; i < shared.length; i++) {
                if (!bits[i]) continue;
                ptrdiff_t place = r * found_pitch + i - of->col;
                if (head) {
                    for (int c = 0; c < IN; c++)
                        together(waiting->x[c] + waiting->count,
                                 load(features[c / 8] + c % 8 * step + i * LANES), bits[i]);
                    for (int l = 0; l < LANES; l++)
                        if (bits[i] >> l & 1)
                            waiting->places[waiting->count++] = place + l * shared.length;
                    if (waiting->count >= AT_ONCE) run_head(waiting, w, to);
                } else {
                    vec sum = all(w[IN]);
                    for (int c = 0; c < IN; c++)
                        if (streams >> c / 8 & 1)
                            sum += load(features[c / 8] + c % 8 * step + i * LANES) * all(w[c]);
                    for (int l = 0; l < LANES; l++)
                        if (bits[i] >> l & 1) to[place + l * shared.length] = sum[l];
                }
            }
        }
        if (head && waiting->count) run_head(waiting, w, to);
    }
}
