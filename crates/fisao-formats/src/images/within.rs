//! Names that stay in their folder.

use std::path::{Component, Path, PathBuf};

/// Whether a name stays in a folder that it is looked up in, by the names alone: links are not followed.
pub fn is_within(folder: &Path, name: &Path) -> bool {
    if name.has_root() || matches!(name.components().next(), Some(Component::Prefix(_))) {
        // The folder of a bare file name is an empty path, of which there is no absolute one.
        let folder = std::path::absolute(Path::new(".").join(folder)).map(|folder| plain(&folder));
        return folder.is_ok_and(|folder| plain(name).starts_with(folder));
    }
    let mut depth = 0_usize;
    for component in name.components() {
        match component {
            Component::ParentDir if depth == 0 => return false,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    true
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_outside_the_folder_are_detected() {
        let within = |name: &str| is_within(Path::new("/data/coco"), Path::new(name));
        for name in
            ["a.jpg", "val/a.jpg", "./a.jpg", "val/../a.jpg", "a..b/..jpg", "/data/coco/a.jpg"]
        {
            assert!(within(name), "{name}");
        }
        for name in [
            "../a.jpg",
            "val/../../a.jpg",
            "/etc/passwd",
            "/data/coco2/a.jpg",
            "/data/coco/../a.jpg",
            "..",
        ] {
            assert!(!within(name), "{name}");
        }
        assert!(is_within(Path::new(""), &std::path::absolute("a.jpg").expect("a path")));
    }
}
