//! Parts of an image encoder on an NVIDIA card. They share its driver; each is copied again where its weights were replaced.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fisao_cuda::kernels::Gelu;
use fisao_cuda::{CudaError, Driver, OnCard};

use crate::activation::Activation;
use crate::card_copy::{Card, NamedTensors};

/// A driver that several parts of a model use, one at a time.
#[derive(Clone)]
pub struct SharedDriver(Arc<Mutex<Box<dyn Driver + Send>>>);

impl SharedDriver {
    /// Shares a driver.
    pub fn new(driver: Box<dyn Driver + Send>) -> Self {
        Self(Arc::new(Mutex::new(driver)))
    }

    /// The driver, for one thread at a time.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Box<dyn Driver + Send>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedDriver").finish_non_exhaustive()
    }
}

/// A part of a model that a card does not compute, so that the CPU does.
#[derive(Debug)]
pub struct LeftOnCpu {
    /// Which, for people.
    pub part: &'static str,
    /// Why.
    pub reason: CudaError,
}

impl LeftOnCpu {
    /// What was copied; nothing, and a note in `left`, where the card does not compute it.
    pub(crate) fn unless<T>(
        copied: Result<T, CudaError>,
        part: &'static str,
        left: &mut Vec<Self>,
    ) -> Result<Option<T>, CudaError> {
        match copied {
            Err(reason @ CudaError::Unsupported { .. }) => {
                left.push(Self { part, reason });
                Ok(None)
            }
            copied => copied.map(Some),
        }
    }
}

/// Memory of a card that encoders of images take, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageMemory {
    /// Weights, which stay there.
    pub weights: usize,
    /// The most that is reserved while images are encoded, and given back then.
    pub work: usize,
}

impl ImageMemory {
    /// With another part, which is not at work at the same time.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        Self { weights: self.weights + other.weights, work: self.work.max(other.work) }
    }

    /// With another encoder, which may be at work at the same time.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self { weights: self.weights + other.weights, work: self.work + other.work }
    }
}

/// Images that are on the card at a time.
pub(crate) const AT_ONCE: usize = 64;

/// What the tensors of a copy are named by.
pub(crate) const NAME: &str = "part";

/// A card with a copy of a part.
pub(crate) type PartCard<P> = Card<State<P>>;

/// What lies on the card.
pub(crate) struct State<P> {
    driver: SharedDriver,
    /// Nothing where it could not be copied again.
    part: Option<P>,
    /// What the part is a copy of.
    weights: NamedTensors,
}

impl<P: OnCard> PartCard<P> {
    /// Copies a part.
    pub(crate) fn new(
        driver: &SharedDriver,
        config: P::Config,
        weights: NamedTensors,
    ) -> Result<Self, CudaError> {
        let (name, part) = {
            let mut driver = driver.lock();
            (driver.name(), P::load(&mut **driver, config, &mut &weights, NAME)?)
        };
        let state = State { driver: driver.clone(), part: Some(part), weights };
        Ok(Self::of(name, state))
    }

    /// What the part takes of the card; `work` is what it reserves while it works.
    pub(crate) fn memory(&self, work: impl FnOnce(&P) -> usize) -> ImageMemory {
        self.lock().part.as_ref().map_or_else(ImageMemory::default, |part| ImageMemory {
            weights: part.weight_bytes(),
            work: work(part),
        })
    }

    /// What `work` makes of the part, which is copied again first if its weights are others. Nothing where the card has no room: that
    /// is logged.
    ///
    /// # Errors
    /// Those of the driver.
    pub(crate) fn run<T>(
        &self,
        config: Result<P::Config, CudaError>,
        weights: NamedTensors,
        work: impl FnOnce(&mut dyn Driver, &P) -> Result<T, CudaError>,
    ) -> Result<Option<T>, CudaError> {
        match self.lock().run(config, weights, work) {
            Err(error @ CudaError::Memory { .. }) => {
                tracing::warn!(%error, "the CPU encodes these images");
                Ok(None)
            }
            done => done.map(Some),
        }
    }
}

impl<P: OnCard> State<P> {
    fn run<T>(
        &mut self,
        config: Result<P::Config, CudaError>,
        weights: NamedTensors,
        work: impl FnOnce(&mut dyn Driver, &P) -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        let mut driver = self.driver.lock();
        let driver = &mut **driver;
        if self.part.is_none() || !weights.are(&self.weights) {
            // There may be no room for both.
            if let Some(before) = self.part.take() {
                before.unload(driver)?;
            }
            let part = P::load(driver, config?, &mut &weights, NAME)?;
            (self.part, self.weights) = (Some(part), weights);
        }
        work(driver, self.part.as_ref().expect("it was copied"))
    }
}

/// The first layer, which tells the sizes of all.
pub(crate) fn first_layer<L>(layers: &[L]) -> Result<&L, CudaError> {
    layers.first().ok_or_else(|| CudaError::Unsupported {
        what: "the number of layers",
        found: "0".to_owned(),
        supported: "1 and more",
    })
}

/// The form of an activation on a card.
pub(crate) fn gelu(activation: Activation) -> Result<Gelu, CudaError> {
    match activation {
        Activation::QuickGelu => Ok(Gelu::Quick),
        Activation::Gelu => Ok(Gelu::Erf),
        Activation::GeluTanh => Ok(Gelu::Tanh),
        Activation::Silu => Err(CudaError::Unsupported {
            what: "an encoder's activation",
            found: "SiLU".to_owned(),
            supported: "forms of GELU",
        }),
    }
}
