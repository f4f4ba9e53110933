//! What a server counts, in Prometheus' format.

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// Counters of one server.
pub(crate) struct Metrics {
    registry: Registry,
    /// Requests by path and status.
    pub(crate) requests: IntCounterVec,
    /// Seconds from a request to its answer, or to the end of its stream's head.
    pub(crate) seconds: Histogram,
    /// Tokens written.
    pub(crate) tokens: IntCounter,
    /// Conversations that wait.
    pub(crate) waiting: IntGauge,
    /// Conversations written together.
    pub(crate) batch: Histogram,
}

impl Metrics {
    /// All of them at zero.
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let histogram = |name, help, buckets: &[f64]| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
        };
        let seconds = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
        let metrics = Self {
            registry: Registry::new(),
            requests: IntCounterVec::new(
                Opts::new("fisao_requests_total", "Requests by path and status"),
                &["path", "status"],
            )?,
            seconds: histogram(
                "fisao_request_seconds",
                "Seconds from a request to its answer",
                &seconds,
            )?,
            tokens: IntCounter::new("fisao_tokens_total", "Tokens written")?,
            waiting: IntGauge::new("fisao_waiting", "Conversations that wait")?,
            batch: histogram(
                "fisao_batch",
                "Conversations written together",
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
            )?,
        };
        metrics.registry.register(Box::new(metrics.requests.clone()))?;
        metrics.registry.register(Box::new(metrics.seconds.clone()))?;
        metrics.registry.register(Box::new(metrics.tokens.clone()))?;
        metrics.registry.register(Box::new(metrics.waiting.clone()))?;
        metrics.registry.register(Box::new(metrics.batch.clone()))?;
        Ok(metrics)
    }

    /// All of them as text.
    pub(crate) fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
