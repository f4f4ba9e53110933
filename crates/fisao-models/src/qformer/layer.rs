//! One layer: attention among queries and text, of some layers attention of the queries to the image, and a feed-forward part of each
//! kind of position.

use burn::tensor::{DType, Device, Tensor};

use super::QFormerConfig;
use crate::activation::Activation;
use crate::attention::{Mask, Shown, attend, merge_heads, split_heads};
use crate::linear::{Linear, LinearVisitor};
use crate::norm::LayerNorm;
use crate::parameters::{ParameterMut, Parameters};
use crate::weights::{WeightError, WeightSource};

/// Attention with its output layer, the residual and the norm behind it.
#[derive(Debug, Clone)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: LayerNorm,
    heads: usize,
}

/// Names of the parts of an attention.
const ATTENTION: [&str; 4] =
    ["attention.query", "attention.key", "attention.value", "output.dense"];

impl Attention {
    /// Loads `{name}.attention.*` and `{name}.output.*`; keys and values are made of states of width `from`.
    fn load(
        config: &QFormerConfig,
        from: usize,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let width = config.hidden_size;
        let mut linear = |part: usize, inputs| {
            let name = format!("{name}.{}", ATTENTION[part]);
            Linear::load(weights, &name, [inputs, width], true, device)
        };
        let (query, key) = (linear(0, width)?, linear(1, from)?);
        let (value, output) = (linear(2, from)?, linear(3, width)?);
        let norm = format!("{name}.output.LayerNorm");
        let norm = LayerNorm::load(weights, &norm, width, config.layer_norm_eps, device)?;
        Ok(Self { query, key, value, output, norm, heads: config.num_attention_heads })
    }

    /// `x`: `[batch, length, hidden]`, `seen`: `[batch, positions, from]` → as `x`.
    fn forward(&self, x: Tensor<3>, seen: Tensor<3>) -> Tensor<3> {
        let [batch, length, width] = x.dims();
        let [_, positions, from] = seen.dims();
        let x = x.reshape([batch * length, width]);
        let seen = seen.reshape([batch * positions, from]);
        let q = split_heads(self.query.forward(x.clone()), batch, length, self.heads);
        let k = split_heads(self.key.forward(seen.clone()), batch, positions, self.heads);
        let v = split_heads(self.value.forward(seen), batch, positions, self.heads);
        let mixed = merge_heads(attend(q, k, v, &Shown::by(&Mask::Full)));
        self.norm.forward(x + self.output.forward(mixed)).reshape([batch, length, width])
    }

    fn linears_mut(&mut self) -> [(&'static str, &mut Linear); 4] {
        let parts = [&mut self.query, &mut self.key, &mut self.value, &mut self.output];
        let mut names = ATTENTION.into_iter();
        parts.map(|part| (names.next().expect("as many names as parts"), part))
    }
}

impl Parameters for Attention {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        for (name, linear) in self.linears_mut() {
            linear.visit_mut(&format!("{prefix}.{name}"), visitor);
        }
        self.norm.visit_mut(&format!("{prefix}.output.LayerNorm"), visitor);
    }
}

/// The feed-forward part of queries or of text, with the residual and the norm behind it.
#[derive(Debug, Clone)]
struct FeedForward {
    /// Names of its two layers: `intermediate` and `output`, or `intermediate_query` and `output_query`.
    names: [&'static str; 2],
    inner: Linear,
    outer: Linear,
    norm: LayerNorm,
    activation: Activation,
}

impl FeedForward {
    fn load(
        config: &QFormerConfig,
        names: [&'static str; 2],
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let (width, inside) = (config.hidden_size, config.intermediate_size);
        let [inner, outer] = names.map(|part| format!("{name}.{part}"));
        let norm = format!("{outer}.LayerNorm");
        let [inner, outer] = [inner + ".dense", outer + ".dense"];
        let inner = Linear::load(weights, &inner, [width, inside], true, device)?;
        let outer = Linear::load(weights, &outer, [inside, width], true, device)?;
        let norm = LayerNorm::load(weights, &norm, width, config.layer_norm_eps, device)?;
        Ok(Self { names, inner, outer, norm, activation: config.hidden_act })
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, length, width] = x.dims();
        let x = x.reshape([batch * length, width]);
        let inside = self.activation.forward(self.inner.forward(x.clone()));
        self.norm.forward(x + self.outer.forward(inside)).reshape([batch, length, width])
    }

    fn linears_mut(&mut self) -> [(String, &mut Linear); 2] {
        let [inner, outer] = self.names.map(|name| format!("{name}.dense"));
        [(inner, &mut self.inner), (outer, &mut self.outer)]
    }
}

impl Parameters for FeedForward {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        for (name, linear) in self.linears_mut() {
            linear.visit_mut(&format!("{prefix}.{name}"), visitor);
        }
        self.norm.visit_mut(&format!("{prefix}.{}.LayerNorm", self.names[1]), visitor);
    }
}

#[derive(Debug, Clone)]
pub(super) struct Layer {
    attention: Attention,
    cross_attention: Option<Attention>,
    text: FeedForward,
    query: FeedForward,
}

impl Layer {
    pub(super) fn load(
        config: &QFormerConfig,
        crosses: bool,
        weights: &mut dyn WeightSource,
        name: &str,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let own = format!("{name}.attention");
        let attention = Attention::load(config, config.hidden_size, weights, &own, device)?;
        let cross_attention = if crosses {
            let (cross, from) = (format!("{name}.crossattention"), config.encoder_hidden_size);
            Some(Attention::load(config, from, weights, &cross, device)?)
        } else {
            None
        };
        let text = ["intermediate", "output"];
        let text = FeedForward::load(config, text, weights, name, device)?;
        let query = ["intermediate_query", "output_query"];
        let query = FeedForward::load(config, query, weights, name, device)?;
        Ok(Self { attention, cross_attention, text, query })
    }

    /// See [`QFormer::forward`](super::QFormer::forward).
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        queries: usize,
        image: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        let length = x.dims()[1];
        let x = self.attention.forward(x.clone(), x);
        if queries == 0 {
            return self.text.forward(x);
        }
        let own = x.clone().narrow(1, 0, queries);
        let own = match (&self.cross_attention, image) {
            (Some(attention), Some(image)) => attention.forward(own, image.clone()),
            (Some(_), None) => panic!("queries need an image to read"),
            (None, _) => own,
        };
        let own = self.query.forward(own);
        if queries == length {
            return own;
        }
        let text = self.text.forward(x.narrow(1, queries, length - queries));
        Tensor::cat(vec![own, text], 1)
    }

    /// Width, width inside the feed-forward parts, heads, ε of the norms and non-linearity.
    pub(super) fn sizes(&self) -> (usize, usize, usize, f32, Activation) {
        let [width, inner] = self.query.inner.size();
        let (heads, epsilon) = (self.attention.heads, self.attention.norm.epsilon as f32);
        (width, inner, heads, epsilon, self.query.activation)
    }

    /// Of the image's states, where the layer attends to them.
    pub(super) fn image_width(&self) -> Option<usize> {
        self.cross_attention.as_ref().map(|attention| attention.key.size()[0])
    }

    /// Type of the matrices.
    pub(super) fn dtype(&self) -> DType {
        self.query.inner.weight.dtype()
    }

    pub(super) fn visit_linears_mut(&mut self, prefix: &str, visitor: &mut LinearVisitor<'_>) {
        for (name, linear) in self.attention.linears_mut() {
            visitor(&format!("{prefix}.attention.{name}"), linear);
        }
        for (name, linear) in self.cross_attention.iter_mut().flat_map(Attention::linears_mut) {
            visitor(&format!("{prefix}.crossattention.{name}"), linear);
        }
        for part in [&mut self.text, &mut self.query] {
            for (name, linear) in part.linears_mut() {
                visitor(&format!("{prefix}.{name}"), linear);
            }
        }
    }
}

impl Parameters for Layer {
    fn visit_mut(&mut self, prefix: &str, visitor: &mut dyn FnMut(&str, ParameterMut<'_>)) {
        self.attention.visit_mut(&format!("{prefix}.attention"), visitor);
        if let Some(attention) = &mut self.cross_attention {
            attention.visit_mut(&format!("{prefix}.crossattention"), visitor);
        }
        self.text.visit_mut(prefix, visitor);
        self.query.visit_mut(prefix, visitor);
    }
}
