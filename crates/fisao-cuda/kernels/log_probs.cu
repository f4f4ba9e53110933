// Log-probability of one token per row and entropy of the row's distribution, nats, without a result of the vocabulary's size.
//
// With z = logits / T and ℓ = ln Σ eᶻ: log p(y) = z_y − ℓ, H = ℓ − Σ p z.

// Largest logit, Σ e^{(logit − largest)/T} and Σ of the same times (logit − largest)/T.
DEVICE void row_sums(const float* logits, int vocabulary, float scale, float* scratch, float& highest, float& total, float& moment)
{
    float most = MINUS_INFINITY;
    for (int at = threadIdx.x; at < vocabulary; at += blockDim.x) most = fmaxf(most, logits[at]);
    highest = block_max(most, scratch);
    float sum = 0.0f, product = 0.0f;
    for (int at = threadIdx.x; at < vocabulary; at += blockDim.x) {
        float z = (logits[at] - highest) * scale, weight = expf(z);
        sum += weight;
        // A token that cannot be drawn has no weight, whatever its logit.
        if (weight > 0.0f) product += weight * z;
    }
    total = block_sum(sum, scratch);
    moment = block_sum(product, scratch);
}

//   logits [rows, vocabulary] f32, targets [rows], out [rows, 2] f32: log-probability, entropy; scale 1/T; one block a row
KERNEL(log_probs, const float* logits, const unsigned* targets, float* out, int vocabulary, float scale)
{
    __shared__ float scratch[32];
    const float* row = logits + (long long)blockIdx.x * vocabulary;
    float highest, total, moment;
    row_sums(row, vocabulary, scale, scratch, highest, total, moment);
    if (threadIdx.x == 0) {
        float log_total = logf(total);
        out[2 * blockIdx.x] = (row[targets[blockIdx.x]] - highest) * scale - log_total;
        out[2 * blockIdx.x + 1] = log_total - moment / total;
    }
}

// The gradient of the logits: ∂z = ∂logp (1_y − p) − ∂H p (z − ℓ + H), ∂logits = ∂z / T.
//   by_output [rows, 2] f32, gradient [rows, vocabulary]
KERNEL(log_probs_backward, const float* logits, const unsigned* targets, const float* by_output, T* gradient, int vocabulary,
       float scale)
{
    __shared__ float scratch[32];
    const float* row = logits + (long long)blockIdx.x * vocabulary;
    T* to = gradient + (long long)blockIdx.x * vocabulary;
    float highest, total, moment;
    row_sums(row, vocabulary, scale, scratch, highest, total, moment);
    float by_log_prob = by_output[2 * blockIdx.x], by_entropy = by_output[2 * blockIdx.x + 1];
    int target = (int)targets[blockIdx.x];
    float expected = moment / total;
    for (int at = threadIdx.x; at < vocabulary; at += blockDim.x) {
        float z = (row[at] - highest) * scale, p = expf(z) / total;
        float by_z = at == target ? by_log_prob : 0.0f;
        if (p > 0.0f) by_z -= p * (by_log_prob + by_entropy * (z - expected));
        to[at] = stored(by_z * scale);
    }
}
