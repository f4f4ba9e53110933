//! Categories that look alike in a hard world: their sprites get the same mean colour.

use image::RgbaImage;

/// Groups of categories by name; a category is in one group at most.
const GROUPS: [&[&str]; 14] = [
    &["fork", "knife", "spoon", "toothbrush", "scissors"],
    &["apple", "orange", "donut", "sports ball", "frisbee"],
    &["cow", "horse", "sheep", "dog", "cat"],
    &["car", "bus", "truck", "train"],
    &["elephant", "giraffe", "zebra"],
    &["bear", "teddy bear"],
    &["bottle", "vase", "wine glass", "cup"],
    &["backpack", "handbag", "suitcase"],
    &["banana", "carrot", "hot dog", "kite"],
    &["laptop", "tv", "cell phone", "keyboard", "mouse", "book"],
    &["bicycle", "motorcycle", "skateboard"],
    &["sink", "toilet"],
    &["bed", "couch", "chair"],
    &["bowl", "cake", "pizza", "sandwich"],
];

/// The group of a category, if it has one.
pub(crate) fn group_of(category: &str) -> Option<usize> {
    GROUPS.iter().position(|group| group.contains(&category))
}

/// Mean colour of a sprite whose colours are premultiplied by alpha.
pub(crate) fn mean_colour(sprite: &RgbaImage) -> [f64; 3] {
    let mut sums = [0.0; 4];
    for pixel in sprite.pixels() {
        for (sum, &channel) in sums.iter_mut().zip(&pixel.0) {
            *sum += f64::from(channel);
        }
    }
    std::array::from_fn(|channel| 255.0 * sums[channel] / sums[3].max(1.0))
}

/// Adds `shift` to the colour of a sprite whose colours are premultiplied by alpha.
pub(crate) fn shift_colour(sprite: &mut RgbaImage, shift: [f64; 3]) {
    for pixel in sprite.pixels_mut() {
        let alpha = f64::from(pixel.0[3]);
        for (channel, shift) in pixel.0.iter_mut().zip(shift) {
            *channel =
                (f64::from(*channel) + shift * alpha / 255.0).round().clamp(0.0, alpha) as u8;
        }
    }
}
