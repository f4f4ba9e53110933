#![doc = include_str!("../README.md")]

/// Name and content of every file of the clear dataset's checkpoint.
pub const CLEAR: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../clear/config.json")),
    ("model.safetensors", include_bytes!("../clear/model.safetensors")),
    ("preprocessor_config.json", include_bytes!("../clear/preprocessor_config.json")),
    ("special_tokens_map.json", include_bytes!("../clear/special_tokens_map.json")),
    ("tokenizer.json", include_bytes!("../clear/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../clear/tokenizer_config.json")),
];

/// The same of the hard dataset's.
pub const HARD: &[(&str, &[u8])] = &[
    ("config.json", include_bytes!("../hard/config.json")),
    ("model.safetensors", include_bytes!("../hard/model.safetensors")),
    ("preprocessor_config.json", include_bytes!("../hard/preprocessor_config.json")),
    ("special_tokens_map.json", include_bytes!("../hard/special_tokens_map.json")),
    ("tokenizer.json", include_bytes!("../hard/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../hard/tokenizer_config.json")),
];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_file_of_the_checkpoint_is_listed() {
        let count = |name: &str| {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            fs::read_dir(folder).expect("the checkpoint").count()
        };
        assert_eq!(count("clear"), super::CLEAR.len());
        assert_eq!(count("hard"), super::HARD.len());
    }
}
