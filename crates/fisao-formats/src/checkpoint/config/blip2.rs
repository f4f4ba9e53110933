//! The configuration of BLIP-2's image–text model.

use fisao_models::blip2::Blip2Config;

use super::instructblip::{queries, resolve_qformer};
use super::{WIDTH, expect_type, vision, whole};
use crate::FormatError;
use crate::fields::Fields;

/// The class whose checkpoints can score; others of this `model_type` write text.
const CLASS: &str = "Blip2ForImageTextRetrieval";

pub(super) fn resolve(top: &Fields<'_>) -> Result<Blip2Config, FormatError> {
    let classes = top.get("architectures").and_then(|classes| classes.as_array());
    if classes.is_some_and(|classes| classes.iter().all(|class| class != CLASS)) {
        let supported = "[\"Blip2ForImageTextRetrieval\"], as in Salesforce/blip2-itm-vit-g (other BLIP-2 models have no contrastive head)";
        return Err(top.refused("architectures", supported));
    }
    let vision = top.needed_object("vision_config", "vision_config.")?;
    let vision = vision::resolve_eva(&vision, "blip_2_vision_model")?;
    let qformer = top.needed_object("qformer_config", "qformer_config.")?;
    expect_type(&qformer, "blip_2_qformer")?;
    // The older name of the setting was written until transformers 4.45.
    for key in ["use_qformer_text_input", "qformer_text_input"] {
        if qformer.flag(key)? == Some(false) {
            return Err(qformer.refused(key, "true, since texts go through the Q-Former"));
        }
    }
    Ok(Blip2Config {
        qformer: resolve_qformer(&qformer, &vision)?,
        query_tokens: queries(top)?,
        projection_dim: whole(top, "image_text_hidden_size", WIDTH, 256)?,
        vision,
    })
}
