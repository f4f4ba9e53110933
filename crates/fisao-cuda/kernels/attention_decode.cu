// Attention of one new position per sequence, in two steps: partial sums over pieces of the keys, then their combination.
//
// Keys of a prompt are read once for all its responses: a block has one piece of one prompt's keys and all queries that see it.

// Keys of a piece.
#define PIECE 64

// Eight neighbours from shared memory.
DEVICE void load_eight(const T* from, float* to)
{
#if STORAGE == 0
    for (int i = 0; i < 8; i++) to[i] = from[i];
#else
    uint4 bits = *(const uint4*)from;
    unsigned pairs[4] = {bits.x, bits.y, bits.z, bits.w};
    for (int i = 0; i < 4; i++) {
        to[2 * i] = widened((T)(pairs[i] & 0xffff));
        to[2 * i + 1] = widened((T)(pairs[i] >> 16));
    }
#endif
}

// Two neighbours, the first at an even place.
DEVICE void load_two(const T* from, float* to)
{
#if STORAGE == 0
    to[0] = from[0];
    to[1] = from[1];
#else
    unsigned bits = *(const unsigned*)from;
    to[0] = widened((T)(bits & 0xffff));
    to[1] = widened((T)(bits >> 16));
#endif
}

// Bytes of shared memory: keys and values, 2 · PIECE (D + SKEW) elements, then of each of 4 warps a query and its weights,
// D + PIECE floats.

//   q [rows, heads · d]; prompt_k, prompt_v [prompts, key_heads, prompt_capacity, d]; own_k, own_v [rows, key_heads, capacity, d]
//   partial [rows, heads, prompt_pieces + own_pieces, d + 2] f32: sums of values, the highest score, the sum of weights
//   groups [prompts + 1], members [rows]: sequences of each prompt
//   filled [rows]: own positions before the new one, negative where there is no sequence; padding [rows]
//   prompt_length [1]
//   grid (max(prompt_pieces, own_pieces), key_heads, prompts + rows), 128 threads
template <int D>
DEVICE void attention_decode(const T* q, const T* prompt_k, const T* prompt_v, const T* own_k, const T* own_v, float* partial,
                             const int* groups, const int* members, const int* filled, const int* padding,
                             const int* prompt_length, int prompts, int prompt_capacity, int capacity, int prompt_pieces,
                             int own_pieces, int heads, int key_heads, int d, int window, float scale)
{
    const int LD = D + SKEW;
    DYNAMIC_SHARED(memory);
    T* keys = (T*)memory;
    T* values = keys + PIECE * LD;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    float* query = (float*)(values + PIECE * LD) + warp * (D + PIECE);
    float* weights = query + D;
    int piece = blockIdx.x, key_head = blockIdx.y, z = blockIdx.z;
    int group = heads / key_heads, first = piece * PIECE, before = prompt_length[0];
    int rows, count, single = 0, place, slot;
    const T *k_head, *v_head;
    if (z < prompts) {
        single = groups[z];
        rows = groups[z + 1] - single;
        count = before;
        place = first;
        slot = piece;
        if (piece >= prompt_pieces) return;
        long long at = ((long long)z * key_heads + key_head) * prompt_capacity * d;
        k_head = prompt_k + at;
        v_head = prompt_v + at;
    } else {
        single = z - prompts;
        rows = 1;
        count = filled[single] + 1;
        place = before + first;
        slot = prompt_pieces + piece;
        if (piece >= own_pieces) return;
        long long at = ((long long)single * key_heads + key_head) * capacity * d;
        k_head = own_k + at;
        v_head = own_v + at;
    }
    if (rows == 0 || first >= count) return;
    load_tile<D>(keys, PIECE, k_head + (long long)first * d, count - first, d, d);
    load_tile<D>(values, PIECE, v_head + (long long)first * d, count - first, d, d);
    __syncthreads();
    for (int index = warp; index < rows * group; index += blockDim.x / 32) {
        int row = z < prompts ? members[single + index / group] : single;
        int head = key_head * group + index % group;
        int at = before + filled[row];
        int seen_from = max(padding[row], at + 1 - window);
        const T* from = q + ((long long)row * heads + head) * d;
        for (int i = lane; i < D; i += 32) query[i] = i < d ? widened(from[i]) * scale : 0.0f;
        __syncwarp();
        float scores[PIECE / 32], most = MINUS_INFINITY;
#pragma unroll
        for (int part = 0; part < PIECE / 32; part++) {
            int key = part * 32 + lane;
            float score = 0.0f;
#pragma unroll 2
            for (int c = 0; c < D; c += 8) {
                float eight[8];
                load_eight(keys + key * LD + c, eight);
                for (int i = 0; i < 8; i++) score += query[c + i] * eight[i];
            }
            bool seen = first + key < count && place + key >= seen_from;
            scores[part] = seen ? score : MINUS_INFINITY;
            most = fmaxf(most, scores[part]);
        }
        most = warp_max(most);
        float total = 0.0f, base = most == MINUS_INFINITY ? 0.0f : most;
        for (int part = 0; part < PIECE / 32; part++) {
            float weight = expf(scores[part] - base);
            total += weight;
            weights[part * 32 + lane] = weight;
        }
        total = warp_sum(total);
        __syncwarp();
        // A lane has two neighbouring columns of every 64.
        float sums[2 * ((D + 63) / 64)];
        for (int i = 0; i < 2 * ((D + 63) / 64); i++) sums[i] = 0.0f;
#pragma unroll 4
        for (int key = 0; key < PIECE; key++) {
            float weight = weights[key];
#pragma unroll
            for (int i = 0; i < (D + 63) / 64; i++) {
                int column = i * 64 + 2 * lane;
                if (column < D) {
                    float two[2];
                    load_two(values + key * LD + column, two);
                    sums[2 * i] += weight * two[0];
                    sums[2 * i + 1] += weight * two[1];
                }
            }
        }
        float* to = partial + (((long long)row * heads + head) * (prompt_pieces + own_pieces) + slot) * (d + 2);
#pragma unroll
        for (int i = 0; i < (D + 63) / 64; i++) {
            int column = i * 64 + 2 * lane;
            if (column < d) to[column] = sums[2 * i];
            if (column + 1 < d) to[column + 1] = sums[2 * i + 1];
        }
        if (lane == 0) {
            to[d] = most;
            to[d + 1] = total;
        }
        __syncwarp();
    }
}

#define ATTENTION_DECODE(D)                                                                                                    \
    KERNEL(attention_decode_##D, const T* q, const T* prompt_k, const T* prompt_v, const T* own_k, const T* own_v,             \
           float* partial, const int* groups, const int* members, const int* filled, const int* padding,                       \
           const int* prompt_length, int prompts, int prompt_capacity, int capacity, int prompt_pieces, int own_pieces,        \
           int heads, int key_heads, int d, int window, float scale)                                                           \
    {                                                                                                                          \
        attention_decode<D>(q, prompt_k, prompt_v, own_k, own_v, partial, groups, members, filled, padding, prompt_length,     \
                            prompts, prompt_capacity, capacity, prompt_pieces, own_pieces, heads, key_heads, d, window, scale); \
    }
ATTENTION_DECODE(32)
ATTENTION_DECODE(64)
ATTENTION_DECODE(80)
ATTENTION_DECODE(96)
ATTENTION_DECODE(128)

// Combines the pieces of each head in their order.
//   partial as above, out [rows, heads · d]; grid (heads, rows), 64 threads
KERNEL(attention_combine, const float* partial, T* out, const int* filled, const int* prompt_length, int prompt_pieces,
       int own_pieces, int heads, int d)
{
    int head = blockIdx.x, row = blockIdx.y;
    T* to = out + ((long long)row * heads + head) * d;
    if (filled[row] < 0) {
        for (int at = threadIdx.x; at < d; at += blockDim.x) to[at] = stored(0.0f);
        return;
    }
    const float* pieces = partial + ((long long)row * heads + head) * (prompt_pieces + own_pieces) * (d + 2);
    int of_prompt = (prompt_length[0] + PIECE - 1) / PIECE, own = filled[row] / PIECE + 1;
    float highest = MINUS_INFINITY;
    for (int piece = 0; piece < of_prompt + own; piece++) {
        int slot = piece < of_prompt ? piece : prompt_pieces + piece - of_prompt;
        highest = fmaxf(highest, pieces[(long long)slot * (d + 2) + d]);
    }
    for (int at = threadIdx.x; at < d; at += blockDim.x) {
        float total = 0.0f, sum = 0.0f;
        for (int piece = 0; piece < of_prompt + own; piece++) {
            int slot = piece < of_prompt ? piece : prompt_pieces + piece - of_prompt;
            const float* part = pieces + (long long)slot * (d + 2);
            float weight = expf(part[d] - highest);
            total += weight * part[d + 1];
            sum += weight * part[at];
        }
        to[at] = stored(sum / total);
    }
}
