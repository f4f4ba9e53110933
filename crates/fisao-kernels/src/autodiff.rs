//! Fused operations as single nodes of the autodiff graph.

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::{FusedGradients, FusedOperations, Operation};

#[derive(Debug)]
struct Fused;

impl<B: FusedGradients, const N: usize> Backward<B, N> for Fused {
    type State = (Operation, [FloatTensor<B>; N]);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (operation, inputs) = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let gradients = B::gradients(&operation, inputs, gradient, wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Runs `forward` on the inputs' primitives and records the node.
fn record<B: FusedGradients, C: CheckpointStrategy, const N: usize>(
    inputs: [FloatTensor<Autodiff<B, C>>; N],
    operation: Operation,
    forward: impl FnOnce([FloatTensor<B>; N], Operation) -> FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    let guards = inputs.each_ref().map(<FloatTensor<Autodiff<B, C>>>::node);
    let inputs = inputs.map(<FloatTensor<Autodiff<B, C>>>::into_primitive);
    match Fused.prepare::<C>(guards).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let output = forward(inputs.clone(), operation.clone());
            prepared.finish((operation, inputs), output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(forward(inputs, operation)),
    }
}

impl<B: FusedOperations + FusedGradients, C: CheckpointStrategy> FusedOperations
    for Autodiff<B, C>
{
    fn fused_1(x: FloatTensor<Self>, operation: Operation) -> FloatTensor<Self> {
        record::<B, C, 1>([x], operation, |[x], operation| B::fused_1(x, operation))
    }

    fn fused_2(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self> {
        record::<B, C, 2>([x, y], operation, |[x, y], operation| B::fused_2(x, y, operation))
    }

    fn fused_3(
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        z: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self> {
        record::<B, C, 3>([x, y, z], operation, |[x, y, z], operation| {
            B::fused_3(x, y, z, operation)
        })
    }

    fn fused_4(
        w: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        z: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self> {
        record::<B, C, 4>([w, x, y, z], operation, |[w, x, y, z], operation| {
            B::fused_4(w, x, y, z, operation)
        })
    }

    fn fused_5(
        v: FloatTensor<Self>,
        w: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        z: FloatTensor<Self>,
        operation: Operation,
    ) -> FloatTensor<Self> {
        record::<B, C, 5>([v, w, x, y, z], operation, |[v, w, x, y, z], operation| {
            B::fused_5(v, w, x, y, z, operation)
        })
    }
}
