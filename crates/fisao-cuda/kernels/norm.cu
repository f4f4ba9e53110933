// Norms over rows of the residual stream, which is f32 whatever the storage type.

// An element of the stream; with `delta` that is added to it first, and written back.
DEVICE float added(float* x, const T* delta, long long at)
{
    float value = x[at];
    if (delta) {
        value += widened(delta[at]);
        x[at] = value;
    }
    return value;
}

// y = x ρ γ, ρ = 1/√(mean x² + ε) (Zhang & Sennrich 2019). With `delta`, x += delta first, and the sum is written back.
//   x [rows, width] f32, delta [rows, width] or null, weight [width] f32, out [rows, width]; one block a row
KERNEL(rms_norm, float* x, const T* delta, const float* weight, T* out, int width, float epsilon)
{
    __shared__ float scratch[32];
    long long first = (long long)blockIdx.x * width;
    float squares = 0.0f;
    for (int at = threadIdx.x; at < width; at += blockDim.x) {
        float value = added(x, delta, first + at);
        squares += value * value;
    }
    float scale = 1.0f / sqrtf(block_sum(squares, scratch) / (float)width + epsilon);
    for (int at = threadIdx.x; at < width; at += blockDim.x) {
        out[first + at] = stored(x[first + at] * scale * weight[at]);
    }
}

// The gradient of x is added to `gradient`: with g = ∂y γ, ∂x = ρ (g − x ρ² mean(g x)).
//   x, gradient [rows, width] f32, by_output [rows, width]; one block a row
KERNEL(rms_norm_backward, const float* x, const float* weight, const T* by_output, float* gradient, int width, float epsilon)
{
    __shared__ float scratch[32];
    long long first = (long long)blockIdx.x * width;
    float squares = 0.0f, products = 0.0f;
    for (int at = threadIdx.x; at < width; at += blockDim.x) {
        float value = x[first + at];
        squares += value * value;
        products += value * widened(by_output[first + at]) * weight[at];
    }
    float scale = 1.0f / sqrtf(block_sum(squares, scratch) / (float)width + epsilon);
    float pull = scale * scale * (block_sum(products, scratch) / (float)width);
    for (int at = threadIdx.x; at < width; at += blockDim.x) {
        float g = widened(by_output[first + at]) * weight[at];
        gradient[first + at] += scale * (g - x[first + at] * pull);
    }
}

// Gradient of the weight: one block for 32 columns, whose threads go through the rows in order.
//   scales [rows] f32: ρ of each row
KERNEL(rms_norm_weight_backward, const float* x, const T* by_output, const float* scales, float* gradient, int rows, int width)
{
    __shared__ float sums[8][32];
    int column = blockIdx.x * 32 + threadIdx.x % 32, part = threadIdx.x / 32;
    float sum = 0.0f;
    for (int row = part; row < rows; row += 8) {
        long long at = (long long)row * width + column;
        if (column < width) sum += widened(by_output[at]) * x[at] * scales[row];
    }
    sums[part][threadIdx.x % 32] = sum;
    __syncthreads();
    if (part == 0 && column < width) {
        for (int other = 1; other < 8; other++) sum += sums[other][threadIdx.x];
        gradient[column] = sum;
    }
}

// ρ of each row: what `rms_norm_weight_backward` needs. One block a row.
KERNEL(rms_norm_scales, const float* x, float* scales, int width, float epsilon)
{
    __shared__ float scratch[32];
    long long first = (long long)blockIdx.x * width;
    float squares = 0.0f;
    for (int at = threadIdx.x; at < width; at += blockDim.x) squares += x[first + at] * x[first + at];
    squares = block_sum(squares, scratch);
    if (threadIdx.x == 0) scales[blockIdx.x] = 1.0f / sqrtf(squares / (float)width + epsilon);
}

// y = (x − mean)/√(var + ε) γ + β (Ba et al. 2016), biased variance. With `delta`, x += delta first.
//   x [rows, width] f32, delta [rows, width] or null, weight, bias [width] f32, out [rows, width]; one block a row
KERNEL(layer_norm, float* x, const T* delta, const float* weight, const float* bias, T* out, int width, float epsilon)
{
    __shared__ float scratch[32];
    long long first = (long long)blockIdx.x * width;
    float sum = 0.0f;
    for (int at = threadIdx.x; at < width; at += blockDim.x) sum += added(x, delta, first + at);
    float mean = block_sum(sum, scratch) / (float)width;
    float squares = 0.0f;
    for (int at = threadIdx.x; at < width; at += blockDim.x) {
        float centred = x[first + at] - mean;
        squares += centred * centred;
    }
    float scale = 1.0f / sqrtf(block_sum(squares, scratch) / (float)width + epsilon);
    for (int at = threadIdx.x; at < width; at += blockDim.x) {
        out[first + at] = stored((x[first + at] - mean) * scale * weight[at] + bias[at]);
    }
}
