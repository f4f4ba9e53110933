// Attention of whole sequences in tiles, with a running maximum (flash attention; Dao 2023, arXiv 2307.08691).

// Queries of a block, 16 a warp, and keys that are in shared memory at a time.
#define QUERIES 64
#define KEYS (STORAGE == 0 ? 32 : 64)

// Bytes of shared memory: queries, keys, values, weights.
//   (QUERIES + 2 · KEYS) (D + SKEW) + QUERIES (KEYS + SKEW) elements

//   q, out [batch · length, heads · d]; k, v [batch, key_heads, capacity, d]
//   log_sums [batch, heads, length] f32 or null: ln Σ exp of each query's scores
//   padding [batch]: positions before a sequence; window: positions that a query sees back to, its own among them
//   prefix, segment: see prelude.cu
//   causal 0: every key behind the padding
//   key_count: keys of a sequence, as many as `length` where it attends to itself; another number only where causal is 0
//   grid (⌈length / QUERIES⌉, heads, batch), 128 threads
template <int D>
DEVICE void attention_prefill(const T* q, const T* k, const T* v, T* out, float* log_sums, int key_count, const int* padding,
                              int length, int heads, int key_heads, int d, int capacity, int window, int prefix, int segment, int causal, float scale)
{
    const int LD = D + SKEW, LP = KEYS + SKEW;
    DYNAMIC_SHARED(memory);
    T* queries = (T*)memory;
    T* keys = queries + QUERIES * LD;
    T* values = keys + KEYS * LD;
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    T* weights = values + KEYS * LD + warp * 16 * LP;
    int first_query = blockIdx.x * QUERIES, head = blockIdx.y, sequence = blockIdx.z;
    int key_head = head / (heads / key_heads);
    const T* k_head = k + ((long long)sequence * key_heads + key_head) * capacity * d;
    const T* v_head = v + ((long long)sequence * key_heads + key_head) * capacity * d;
    long long first_row = (long long)sequence * length + first_query;
    load_tile<D>(queries, QUERIES, q + (first_row * heads + head) * d, length - first_query, d, (long long)heads * d);

    float sums[D / 8][4];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[n][i] = 0.0f;
    float highest[2] = {MINUS_INFINITY, MINUS_INFINITY}, total[2] = {0.0f, 0.0f};
    int first_key = padding[sequence], end_key = key_count;
    if (causal) {
        // Of the prefix a query in a later segment sees as much as if its segment were the first.
        int last = min(first_query + QUERIES, length) - 1;
        int most = max(segment_shift(segment_start(first_query, prefix, segment), prefix),
                       segment_shift(segment_start(last, prefix, segment), prefix));
        first_key = max(first_key, first_query - most + 1 - window);
        end_key = min(length, first_query + QUERIES);
    }
    int first_start = segment_start(first_query, prefix, segment);
    for (int key0 = first_key / KEYS * KEYS; key0 < end_key; key0 += KEYS) {
        // Keys of segments before those of the queries.
        if (causal && key0 >= prefix && key0 + KEYS <= first_start) continue;
        __syncthreads();
        load_tile<D>(keys, KEYS, k_head + (long long)key0 * d, key_count - key0, d, d);
        load_tile<D>(values, KEYS, v_head + (long long)key0 * d, key_count - key0, d, d);
        __syncthreads();
        float scores[KEYS / 8][4];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) scores[n][i] = 0.0f;
#pragma unroll UNROLLED
        for (int c = 0; c < D; c += 16) {
            Left a = left_tile(queries + warp * 16 * LD + c, LD, 1);
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) add_product(scores[n], a, right_tile(keys + n * 8 * LD + c, 1, LD));
        }
#pragma unroll
        for (int side = 0; side < 2; side++) {
            int query = first_query + warp * 16 + g + side * 8;
            int start = segment_start(query, prefix, segment);
            float most = highest[side];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 2 * side; i < 2 * side + 2; i++) {
                    int key = key0 + n * 8 + 2 * t + i % 2;
                    bool seen = key >= padding[sequence] && key < key_count && (!causal || sees(query, start, key, prefix, window));
                    scores[n][i] = seen ? scores[n][i] * scale : MINUS_INFINITY;
                    most = fmaxf(most, scores[n][i]);
                }
            }
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
            most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
            // Nothing seen yet: all weights are 0.
            float base = most == MINUS_INFINITY ? 0.0f : most;
            float kept = expf(highest[side] - base), sum = 0.0f;
            highest[side] = most;
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 2 * side; i < 2 * side + 2; i++) {
                    float weight = expf(scores[n][i] - base);
                    sum += weight;
                    weights[(g + side * 8) * LP + n * 8 + 2 * t + i % 2] = stored(weight);
                }
            }
            sum += __shfl_xor_sync(ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(ALL_LANES, sum, 2);
            total[side] = total[side] * kept + sum;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                sums[n][2 * side] *= kept;
                sums[n][2 * side + 1] *= kept;
            }
        }
        __syncwarp();
#pragma unroll UNROLLED
        for (int c = 0; c < KEYS; c += 16) {
            Left a = left_tile(weights + c, LP, 1);
#pragma unroll
            for (int n = 0; n < D / 8; n++) add_product(sums[n], a, right_tile(values + c * LD + n * 8, LD, 1));
        }
    }
#pragma unroll
    for (int side = 0; side < 2; side++) {
        int query = first_query + warp * 16 + g + side * 8;
        if (query >= length) continue;
        float by = total[side] > 0.0f ? 1.0f / total[side] : 0.0f;
        T* row = out + (((long long)sequence * length + query) * heads + head) * d;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                int column = n * 8 + 2 * t + i;
                if (column < d) row[column] = stored(sums[n][2 * side + i] * by);
            }
        }
        if (log_sums && t == 0) {
            log_sums[((long long)sequence * heads + head) * length + query] = highest[side] + logf(total[side]);
        }
    }
}

#define ATTENTION_PREFILL(D)                                                                                                   \
    KERNEL(attention_prefill_##D, const T* q, const T* k, const T* v, T* out, float* log_sums, int key_count,                  \
           const int* padding, int length, int heads, int key_heads, int d, int capacity, int window, int prefix, int segment, \
           int causal, float scale)                                                                                            \
    {                                                                                                                          \
        attention_prefill<D>(q, k, v, out, log_sums, key_count, padding, length, heads, key_heads, d, capacity, window, prefix,\
                             segment, causal, scale);                                                                          \
    }
ATTENTION_PREFILL(32)
ATTENTION_PREFILL(64)
ATTENTION_PREFILL(80)
ATTENTION_PREFILL(96)
ATTENTION_PREFILL(128)
