// AdamW and the norm of gradients, in f32.

// Sums of squares of pieces, each in a fixed order. One block a piece of 4096 elements.
KERNEL(square_sums, const float* x, float* out, long long count)
{
    __shared__ float scratch[32];
    long long first = (long long)blockIdx.x * 4096;
    float sum = 0.0f;
    for (int at = threadIdx.x; at < 4096; at += blockDim.x) {
        if (first + at < count) sum += x[first + at] * x[first + at];
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// The norm from the sums of squares, and the factor that limits it to `limit`.
//   sums [count]; out [2]: norm, factor; one block
KERNEL(global_norm, const float* sums, float* out, int count, float limit)
{
    __shared__ float scratch[32];
    float sum = 0.0f;
    for (int at = threadIdx.x; at < count; at += blockDim.x) sum += sums[at];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        float norm = sqrtf(sum);
        out[0] = norm;
        out[1] = norm > limit ? limit / norm : 1.0f;
    }
}

// Decoupled weight decay (Loshchilov & Hutter 2019): m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g²,
// w ← w − η (m̂/(√v̂ + ε) + λ w); `copy` gets w in the storage type, if it is not null.
//   correction_m = 1 − β₁ᵗ, correction_v = 1 − β₂ᵗ; factor [1]: what gradients are multiplied by, or null
KERNEL(adamw, float* w, const float* g, float* m, float* v, T* copy, const float* factor, long long count, float rate,
       float beta_m, float beta_v, float epsilon, float decay, float correction_m, float correction_v)
{
    long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count) return;
    float gradient = factor ? g[at] * factor[0] : g[at];
    float first = beta_m * m[at] + (1.0f - beta_m) * gradient;
    float second = beta_v * v[at] + (1.0f - beta_v) * gradient * gradient;
    m[at] = first;
    v[at] = second;
    float step = first / correction_m / (sqrtf(second / correction_v) + epsilon);
    float value = w[at] - rate * (step + decay * w[at]);
    w[at] = value;
    if (copy) copy[at] = stored(value);
}
