// The backward pass of attention_prefill: scores are recomputed from queries, keys and the sums of their exponentials, and every
// gradient is summed by one block, in one order.
//
// With P = exp(s − ln Σ) and δ = Σ ∂o o over a row: ∂v = Pᵀ ∂o, ∂s = P (∂o vᵀ − δ), ∂q = ∂s k / √d, ∂k = ∂sᵀ q / √d.

// Keys (of the queries' gradient) or queries (of the keys') that are in shared memory at a time, beside 64 of the others.
#define STEP (STORAGE == 0 ? 16 : 32)

//   out, by_out [rows, heads · d]; deltas [batch, heads, length] f32; a warp a head of a row: grid (rows), 128 threads
KERNEL(attention_deltas, const T* out, const T* by_out, float* deltas, int length, int heads, int d)
{
    int row = blockIdx.x, sequence = row / length;
    for (int head = threadIdx.x / 32; head < heads; head += blockDim.x / 32) {
        long long first = ((long long)row * heads + head) * d;
        float sum = 0.0f;
        for (int at = threadIdx.x % 32; at < d; at += 32) sum += widened(out[first + at]) * widened(by_out[first + at]);
        sum = warp_sum(sum);
        if (threadIdx.x % 32 == 0) deltas[((long long)sequence * heads + head) * length + row % length] = sum;
    }
}

// Whether a query of a sequence sees a key of it; both may be beyond its end.
DEVICE bool is_seen(int query, int key, int padding, int length, int window, int prefix, int segment, int causal)
{
    if (query >= length || key < padding || key >= length) return false;
    return !causal || sees(query, segment_start(query, prefix, segment), key, prefix, window);
}

// Products of a warp's 16 rows with STEP others, of two pairs of tiles D wide: rows, others.
template <int D>
DEVICE void two_products(float (&first)[STEP / 8][4], const T* first_rows, const T* first_others, float (&second)[STEP / 8][4],
                         const T* second_rows, const T* second_others)
{
    const int LD = D + SKEW;
#pragma unroll
    for (int n = 0; n < STEP / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) first[n][i] = second[n][i] = 0.0f;
#pragma unroll UNROLLED
    for (int c = 0; c < D; c += 16) {
        Left a = left_tile(first_rows + c, LD, 1);
        Left b = left_tile(second_rows + c, LD, 1);
#pragma unroll
        for (int n = 0; n < STEP / 8; n++) {
            add_product(first[n], a, right_tile(first_others + n * 8 * LD + c, 1, LD));
            add_product(second[n], b, right_tile(second_others + n * 8 * LD + c, 1, LD));
        }
    }
}

// Bytes of shared memory: queries, ∂o, keys, values, ∂s: (2 · 64 + 2 · STEP) (D + SKEW) + 64 (STEP + SKEW) elements
//   q, by_out, by_q [batch · length, heads · d]; k, v [batch, key_heads, capacity, d]; log_sums, deltas [batch, heads, length] f32
//   grid (⌈length / 64⌉, heads, batch), 128 threads
template <int D>
DEVICE void attention_by_queries(const T* q, const T* k, const T* v, const T* by_out, const float* log_sums, const float* deltas,
                                 T* by_q, const int* padding, int length, int heads, int key_heads, int d, int capacity,
                                 int window, int prefix, int segment, int causal, float scale)
{
    const int LD = D + SKEW, LP = STEP + SKEW;
    DYNAMIC_SHARED(memory);
    T* queries = (T*)memory;
    T* by_outs = queries + 64 * LD;
    T* keys = by_outs + 64 * LD;
    T* values = keys + STEP * LD;
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    T* by_scores = values + STEP * LD + warp * 16 * LP;
    int first_query = blockIdx.x * 64, head = blockIdx.y, sequence = blockIdx.z;
    long long of_keys = ((long long)sequence * key_heads + head / (heads / key_heads)) * capacity * d;
    long long first_row = (long long)sequence * length + first_query;
    load_tile<D>(queries, 64, q + (first_row * heads + head) * d, length - first_query, d, (long long)heads * d);
    load_tile<D>(by_outs, 64, by_out + (first_row * heads + head) * d, length - first_query, d, (long long)heads * d);
    const float* log_row = log_sums + ((long long)sequence * heads + head) * length;
    const float* delta_row = deltas + ((long long)sequence * heads + head) * length;
    float sums[D / 8][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[n][i] = 0.0f;
    float log_sum[2], delta[2];
#pragma unroll
    for (int side = 0; side < 2; side++) {
        int query = first_query + warp * 16 + g + side * 8;
        log_sum[side] = query < length ? log_row[query] : 0.0f;
        delta[side] = query < length ? delta_row[query] : 0.0f;
    }
    int first_key = padding[sequence], end_key = length;
    if (causal) {
        int last = min(first_query + 64, length) - 1;
        int most = max(segment_shift(segment_start(first_query, prefix, segment), prefix),
                       segment_shift(segment_start(last, prefix, segment), prefix));
        first_key = max(first_key, first_query - most + 1 - window);
        end_key = min(length, first_query + 64);
    }
    int first_start = segment_start(first_query, prefix, segment);
    for (int key0 = first_key / STEP * STEP; key0 < end_key; key0 += STEP) {
        if (causal && key0 >= prefix && key0 + STEP <= first_start) continue;
        __syncthreads();
        load_tile<D>(keys, STEP, k + of_keys + (long long)key0 * d, length - key0, d, d);
        load_tile<D>(values, STEP, v + of_keys + (long long)key0 * d, length - key0, d, d);
        __syncthreads();
        float scores[STEP / 8][4], by_weights[STEP / 8][4];
        two_products<D>(scores, queries + warp * 16 * LD, keys, by_weights, by_outs + warp * 16 * LD, values);
#pragma unroll
        for (int n = 0; n < STEP / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int query = first_query + warp * 16 + g + i / 2 * 8, key = key0 + n * 8 + 2 * t + i % 2;
                bool seen = is_seen(query, key, padding[sequence], length, window, prefix, segment, causal);
                float weight = seen ? expf(scores[n][i] * scale - log_sum[i / 2]) : 0.0f;
                float by_score = weight * (by_weights[n][i] - delta[i / 2]) * scale;
                by_scores[(g + i / 2 * 8) * LP + n * 8 + 2 * t + i % 2] = stored(by_score);
            }
        }
        __syncwarp();
#pragma unroll
        for (int c = 0; c < STEP; c += 16) {
            Left a = left_tile(by_scores + c, LP, 1);
#pragma unroll
            for (int n = 0; n < D / 8; n++) add_product(sums[n], a, right_tile(keys + c * LD + n * 8, LD, 1));
        }
    }
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int query = first_query + warp * 16 + g + i / 2 * 8, column = n * 8 + 2 * t + i % 2;
            if (query < length && column < d) {
                by_q[(((long long)sequence * length + query) * heads + head) * d + column] = stored(sums[n][i]);
            }
        }
    }
}

// Bytes of shared memory: keys, values, queries, ∂o, Pᵀ, ∂sᵀ: (2 · 64 + 2 · STEP) (D + SKEW) + 2 · 64 (STEP + SKEW) elements
//   by_k, by_v [batch, key_heads, length, d]; grid (⌈length / 64⌉, key_heads, batch), 128 threads
template <int D>
DEVICE void attention_by_keys(const T* q, const T* k, const T* v, const T* by_out, const float* log_sums, const float* deltas,
                              T* by_k, T* by_v, const int* padding, int length, int heads, int key_heads, int d, int capacity,
                              int window, int prefix, int segment, int causal, float scale)
{
    const int LD = D + SKEW, LP = STEP + SKEW;
    DYNAMIC_SHARED(memory);
    T* keys = (T*)memory;
    T* values = keys + 64 * LD;
    T* queries = values + 64 * LD;
    T* by_outs = queries + STEP * LD;
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    T* weights = by_outs + STEP * LD + warp * 16 * LP;
    T* by_scores = weights + 64 * LP;
    int first_key = blockIdx.x * 64, key_head = blockIdx.y, sequence = blockIdx.z, group = heads / key_heads;
    long long of_keys = ((long long)sequence * key_heads + key_head) * capacity * d;
    load_tile<D>(keys, 64, k + of_keys + (long long)first_key * d, length - first_key, d, d);
    load_tile<D>(values, 64, v + of_keys + (long long)first_key * d, length - first_key, d, d);
    float by_keys[D / 8][4], by_values[D / 8][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) by_keys[n][i] = by_values[n][i] = 0.0f;
    // Queries that see a key of the tile.
    int first_query = causal ? max(first_key, padding[sequence]) : 0;
    int end_query = length;
    if (causal && first_key + 64 < length) {
        // A window ends for all segments at once; only without any it bounds the queries.
        if (prefix >= length) end_query = (int)min((long long)length, (long long)first_key + 63 + window);
        // Keys behind the prefix are seen up to the end of the last one's segment.
        if (first_key >= prefix) end_query = min(end_query, segment_start(first_key + 63, prefix, segment) + segment);
    }
    for (int head = key_head * group; head < (key_head + 1) * group; head++) {
        const float* log_row = log_sums + ((long long)sequence * heads + head) * length;
        const float* delta_row = deltas + ((long long)sequence * heads + head) * length;
        for (int query0 = first_query / STEP * STEP; query0 < end_query; query0 += STEP) {
            __syncthreads();
            long long row = (((long long)sequence * length + query0) * heads + head) * d;
            load_tile<D>(queries, STEP, q + row, length - query0, d, (long long)heads * d);
            load_tile<D>(by_outs, STEP, by_out + row, length - query0, d, (long long)heads * d);
            __syncthreads();
            float scores[STEP / 8][4], by_weights[STEP / 8][4];
            two_products<D>(scores, keys + warp * 16 * LD, queries, by_weights, values + warp * 16 * LD, by_outs);
#pragma unroll
            for (int n = 0; n < STEP / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    int key = first_key + warp * 16 + g + i / 2 * 8, query = query0 + n * 8 + 2 * t + i % 2;
                    bool seen = is_seen(query, key, padding[sequence], length, window, prefix, segment, causal);
                    float weight = seen ? expf(scores[n][i] * scale - log_row[query]) : 0.0f;
                    float by_score = seen ? weight * (by_weights[n][i] - delta_row[query]) * scale : 0.0f;
                    int at = (g + i / 2 * 8) * LP + n * 8 + 2 * t + i % 2;
                    weights[at] = stored(weight);
                    by_scores[at] = stored(by_score);
                }
            }
            __syncwarp();
#pragma unroll
            for (int c = 0; c < STEP; c += 16) {
                Left a = left_tile(weights + c, LP, 1);
                Left b = left_tile(by_scores + c, LP, 1);
#pragma unroll
                for (int n = 0; n < D / 8; n++) {
                    add_product(by_values[n], a, right_tile(by_outs + c * LD + n * 8, LD, 1));
                    add_product(by_keys[n], b, right_tile(queries + c * LD + n * 8, LD, 1));
                }
            }
        }
    }
    long long to = ((long long)sequence * key_heads + key_head) * length * d;
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int key = first_key + warp * 16 + g + i / 2 * 8, column = n * 8 + 2 * t + i % 2;
            if (key < length && column < d) {
                by_k[to + (long long)key * d + column] = stored(by_keys[n][i]);
                by_v[to + (long long)key * d + column] = stored(by_values[n][i]);
            }
        }
    }
}

#define ATTENTION_BY_QUERIES(D)                                                                                                \
    KERNEL(attention_by_queries_##D, const T* q, const T* k, const T* v, const T* by_out, const float* log_sums,               \
           const float* deltas, T* by_q, const int* padding, int length, int heads, int key_heads, int d, int capacity,        \
           int window, int prefix, int segment, int causal, float scale)                                                                                \
    {                                                                                                                          \
        attention_by_queries<D>(q, k, v, by_out, log_sums, deltas, by_q, padding, length, heads, key_heads, d, capacity,       \
                                window, prefix, segment, causal, scale);                                                                        \
    }
ATTENTION_BY_QUERIES(32)
ATTENTION_BY_QUERIES(64)
ATTENTION_BY_QUERIES(80)
ATTENTION_BY_QUERIES(96)
ATTENTION_BY_QUERIES(128)

#define ATTENTION_BY_KEYS(D)                                                                                                   \
    KERNEL(attention_by_keys_##D, const T* q, const T* k, const T* v, const T* by_out, const float* log_sums,                  \
           const float* deltas, T* by_k, T* by_v, const int* padding, int length, int heads, int key_heads, int d,             \
           int capacity, int window, int prefix, int segment, int causal, float scale)                                                                  \
    {                                                                                                                          \
        attention_by_keys<D>(q, k, v, by_out, log_sums, deltas, by_k, by_v, padding, length, heads, key_heads, d, capacity,    \
                             window, prefix, segment, causal, scale);                                                                           \
    }
ATTENTION_BY_KEYS(32)
ATTENTION_BY_KEYS(64)
ATTENTION_BY_KEYS(80)
ATTENTION_BY_KEYS(96)
ATTENTION_BY_KEYS(128)
