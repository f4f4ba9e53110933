#![doc = include_str!("../README.md")]

/// Name and content of every file of the checkpoint.
pub const FILES: &[(&str, &[u8])] = &[
    ("chat_template.jinja", include_bytes!("../model/chat_template.jinja")),
    ("config.json", include_bytes!("../model/config.json")),
    ("generation_config.json", include_bytes!("../model/generation_config.json")),
    ("model.safetensors", include_bytes!("../model/model.safetensors")),
    ("preprocessor_config.json", include_bytes!("../model/preprocessor_config.json")),
    ("processor_config.json", include_bytes!("../model/processor_config.json")),
    ("special_tokens_map.json", include_bytes!("../model/special_tokens_map.json")),
    ("tokenizer.json", include_bytes!("../model/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../model/tokenizer_config.json")),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_file_of_the_checkpoint_is_listed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("model");
        let count = fs::read_dir(folder).expect("the checkpoint").count();
        assert_eq!(count, super::FILES.len());
    }
}
