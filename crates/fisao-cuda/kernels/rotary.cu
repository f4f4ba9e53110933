// Rotary embedding in the "rotate half" convention (Su et al. 2021), biases and norms of heads before it, and the KV cache behind it.

// The angle's cosine and sine of one pair of dimensions.
//   table [positions, half, 2] f32; positions [rows, axes]; axis [half]: which of three positions a pair reads, or null
DEVICE const float* rotary_angle(const float* table, const int* positions, const int* axis, int row, int axes, int pair, int half)
{
    int position = positions[row * axes + (axis ? axis[pair] : 0)];
    return table + ((long long)position * half + pair) * 2;
}

// ρ of a head whose lanes hold pairs `lane`, `lane` + 32, …
DEVICE float head_scale(const T* head, const float* bias, int half, float epsilon)
{
    float squares = 0.0f;
    for (int pair = threadIdx.x % 32; pair < half; pair += 32) {
        float x = widened(head[pair]), y = widened(head[pair + half]);
        if (bias) {
            x += bias[pair];
            y += bias[pair + half];
        }
        squares += x * x + y * y;
    }
    return 1.0f / sqrtf(warp_sum(squares) / (float)(2 * half) + epsilon);
}

// Splits a row of the fused product into heads, adds biases, normalises and rotates queries and keys; queries go to q, keys and values
// behind those that are in the cache.
//   qkv [rows, (heads + 2 · key_heads) · d]; bias the same width, f32, or null; q_norm, k_norm [d] f32, or null
//   q [rows, heads · d]; k_cache, v_cache [rows / length, key_heads, capacity, d]
//   filled [rows / length]: positions in the cache, negative where there is no sequence; null: 0
//   one block a row, a warp a head
KERNEL(rotary_append, const T* qkv, const float* bias, const float* q_norm, const float* k_norm, const float* table,
       const int* positions, const int* axis, T* q, T* k_cache, T* v_cache, const int* filled, int length, int capacity, int heads,
       int key_heads, int d, int axes, float epsilon)
{
    int row = blockIdx.x, sequence = row / length, half = d / 2;
    int before = filled ? filled[sequence] : 0;
    if (before < 0) return;
    int place = before + row % length;
    int all = heads + 2 * key_heads;
    for (int head = threadIdx.x / 32; head < all; head += blockDim.x / 32) {
        const T* from = qkv + ((long long)row * all + head) * d;
        const float* head_bias = bias ? bias + head * d : bias;
        T* to;
        if (head < heads) {
            to = q + ((long long)row * heads + head) * d;
        } else {
            int key_head = (head - heads) % key_heads;
            T* cache = head < heads + key_heads ? k_cache : v_cache;
            to = cache + (((long long)sequence * key_heads + key_head) * capacity + place) * d;
        }
        bool is_value = head >= heads + key_heads;
        const float* norm = is_value ? (const float*)0 : head < heads ? q_norm : k_norm;
        float scale = norm ? head_scale(from, head_bias, half, epsilon) : 1.0f;
        for (int pair = threadIdx.x % 32; pair < half; pair += 32) {
            float x = widened(from[pair]), y = widened(from[pair + half]);
            if (head_bias) {
                x += head_bias[pair];
                y += head_bias[pair + half];
            }
            if (norm) {
                x = x * scale * norm[pair];
                y = y * scale * norm[pair + half];
            }
            if (!is_value) {
                const float* angle = rotary_angle(table, positions, axis, row, axes, pair, half);
                float rotated = x * angle[0] - y * angle[1];
                y = y * angle[0] + x * angle[1];
                x = rotated;
            }
            to[pair] = stored(x);
            to[pair + half] = stored(y);
        }
    }
}

// The gradient of the fused product from those of queries, keys and values: rotated back, then through the norms of heads.
//   qkv, gradient [rows, (heads + 2 · key_heads) · d]; by_q [rows, heads · d]; by_k, by_v [rows / length, key_heads, length, d]
KERNEL(rotary_backward, const T* qkv, const float* bias, const float* q_norm, const float* k_norm, const float* table,
       const int* positions, const int* axis, const T* by_q, const T* by_k, const T* by_v, T* gradient, int length, int heads,
       int key_heads, int d, int axes, float epsilon)
{
    int row = blockIdx.x, sequence = row / length, half = d / 2;
    int all = heads + 2 * key_heads;
    for (int head = threadIdx.x / 32; head < all; head += blockDim.x / 32) {
        long long at = ((long long)row * all + head) * d;
        const float* head_bias = bias ? bias + head * d : bias;
        const T* from;
        if (head < heads) {
            from = by_q + ((long long)row * heads + head) * d;
        } else {
            int key_head = (head - heads) % key_heads;
            from = (head < heads + key_heads ? by_k : by_v) + (((long long)sequence * key_heads + key_head) * length + row % length) * d;
        }
        bool is_value = head >= heads + key_heads;
        const float* norm = is_value ? (const float*)0 : head < heads ? q_norm : k_norm;
        float scale = 1.0f, pull = 0.0f;
        if (norm) {
            scale = head_scale(qkv + at, head_bias, half, epsilon);
            float products = 0.0f;
            for (int pair = threadIdx.x % 32; pair < half; pair += 32) {
                const float* angle = rotary_angle(table, positions, axis, row, axes, pair, half);
                float x = widened(qkv[at + pair]), y = widened(qkv[at + pair + half]);
                if (head_bias) {
                    x += head_bias[pair];
                    y += head_bias[pair + half];
                }
                float u = widened(from[pair]), v = widened(from[pair + half]);
                float by_x = u * angle[0] + v * angle[1], by_y = v * angle[0] - u * angle[1];
                products += by_x * norm[pair] * x + by_y * norm[pair + half] * y;
            }
            pull = scale * scale * (warp_sum(products) / (float)d);
        }
        for (int pair = threadIdx.x % 32; pair < half; pair += 32) {
            float u = widened(from[pair]), v = widened(from[pair + half]);
            float by_x = u, by_y = v;
            if (!is_value) {
                const float* angle = rotary_angle(table, positions, axis, row, axes, pair, half);
                by_x = u * angle[0] + v * angle[1];
                by_y = v * angle[0] - u * angle[1];
            }
            if (norm) {
                float x = widened(qkv[at + pair]), y = widened(qkv[at + pair + half]);
                if (head_bias) {
                    x += head_bias[pair];
                    y += head_bias[pair + half];
                }
                by_x = scale * (by_x * norm[pair] - x * pull);
                by_y = scale * (by_y * norm[pair + half] - y * pull);
            }
            gradient[at + pair] = stored(by_x);
            gradient[at + pair + half] = stored(by_y);
        }
    }
}
