use fisao_cuda::kernels::{
    Appended, HeadTransforms, Heads, Rotary, rotary_append, rotary_backward,
};
use fisao_cuda::{Buffer, Driver, Storage};

use crate::device::{
    STORAGES, assert_close, doubles, download, driver, room, rounded, tolerance, upload,
    upload_ints, values,
};

const EPSILON: f64 = 1e-5;

/// One case: heads, biases, norms, positions of three axes.
struct Case {
    heads: Heads,
    transformed: bool,
    axes: usize,
}

fn cases() -> Vec<Case> {
    let heads = |heads, key_heads, size| Heads { heads, key_heads, size };
    vec![
        Case { heads: heads(1, 1, 2), transformed: false, axes: 1 },
        Case { heads: heads(4, 2, 18), transformed: true, axes: 1 },
        Case { heads: heads(3, 3, 80), transformed: true, axes: 3 },
        Case { heads: heads(5, 1, 128), transformed: false, axes: 3 },
    ]
}

/// What one head becomes: biased, normed, rotated.
struct Head {
    x: Vec<f64>,
    scale: f64,
}

struct Reference {
    bias: Vec<f64>,
    norms: [Vec<f64>; 2],
    transformed: bool,
    angles: Vec<f64>,
    heads: Heads,
}

impl Reference {
    /// The norm of a head of queries or keys.
    fn norm(&self, head: usize) -> Option<&[f64]> {
        let Heads { heads, key_heads, .. } = self.heads;
        let norm = usize::from(head >= heads);
        (self.transformed && head < heads + key_heads).then(|| &self.norms[norm][..])
    }

    fn biased(&self, head: usize, x: &[f64]) -> Head {
        let size = self.heads.size;
        let bias = |i| if self.transformed { self.bias[head * size + i] } else { 0.0 };
        let x: Vec<f64> = x.iter().enumerate().map(|(i, x)| x + bias(i)).collect();
        let squares = x.iter().map(|x| x * x).sum::<f64>() / size as f64;
        Head { x, scale: (squares + EPSILON).sqrt().recip() }
    }

    fn rotated(&self, row: usize, head: usize, x: &[f64]) -> Vec<f64> {
        let Head { mut x, scale } = self.biased(head, x);
        if let Some(norm) = self.norm(head) {
            x.iter_mut().zip(norm).for_each(|(x, norm)| *x *= scale * norm);
        }
        self.turn(row, head, x, 1.0)
    }

    fn turn(&self, row: usize, head: usize, x: Vec<f64>, sign: f64) -> Vec<f64> {
        let half = self.heads.size / 2;
        if head >= self.heads.heads + self.heads.key_heads {
            return x;
        }
        let mut out = x.clone();
        for i in 0..half {
            let (sin, cos) = self.angles[row * half + i].sin_cos();
            let sin = sin * sign;
            out[i] = x[i] * cos - x[i + half] * sin;
            out[i + half] = x[i + half] * cos + x[i] * sin;
        }
        out
    }

    fn gradient(&self, row: usize, head: usize, x: &[f64], by: Vec<f64>) -> Vec<f64> {
        let Head { x, scale } = self.biased(head, x);
        let by = self.turn(row, head, by, -1.0);
        let Some(norm) = self.norm(head) else { return by };
        let g: Vec<f64> = by.iter().zip(norm).map(|(by, norm)| by * norm).collect();
        let mean = g.iter().zip(&x).map(|(g, x)| g * x).sum::<f64>() / x.len() as f64;
        g.iter().zip(&x).map(|(g, x)| scale * (g - x * scale * scale * mean)).collect()
    }
}

#[test]
fn heads_are_normed_rotated_and_appended() {
    let Some(mut driver) = driver("heads_are_normed_rotated_and_appended") else { return };
    for storage in STORAGES {
        for case in cases() {
            check(&mut driver, storage, &case);
        }
    }
}

fn check(driver: &mut dyn Driver, storage: Storage, case: &Case) {
    let &Case { heads, transformed, axes } = case;
    let (sequences, length, capacity) = (3, 2, 5);
    let (rows, half, wide) = (sequences * length, heads.size / 2, Storage::F32);
    let all = heads.heads + 2 * heads.key_heads;
    let qkv = rounded(1, rows * heads.fused(), storage);
    let bias = values(2, heads.fused());
    let norms = [values(3, heads.size), values(4, heads.size)];
    let positions: Vec<i32> = (0..rows * axes).map(|at| (at * 7 % 11) as i32).collect();
    let axis: Vec<i32> = (0..half).map(|pair| (pair % axes) as i32).collect();
    let angle = |position: i32, pair: usize| {
        f64::from(position) * 10_f64.powf(-(pair as f64) / half as f64)
    };
    let table: Vec<f32> = (0..11)
        .flat_map(|position| (0..half).map(move |pair| angle(position, pair)))
        .flat_map(|angle| [angle.cos() as f32, angle.sin() as f32])
        .collect();
    let filled = [3, -1, 0];
    let on_card = upload(driver, storage, &qkv);
    let transforms = if transformed {
        HeadTransforms {
            bias: upload(driver, wide, &bias),
            query_norm: upload(driver, wide, &norms[0]),
            key_norm: upload(driver, wide, &norms[1]),
            epsilon: EPSILON as f32,
        }
    } else {
        let none = Buffer::NULL;
        HeadTransforms { bias: none, query_norm: none, key_norm: none, epsilon: 0.0 }
    };
    let axis = if axes == 1 { Buffer::NULL } else { upload_ints(driver, &axis) };
    let table = upload(driver, wide, &table);
    let places = upload_ints(driver, &positions);
    let rotary = Rotary { rows, table, positions: places, axis, axes };
    let cache = sequences * heads.keys() * capacity;
    let to = Appended {
        keys: upload(driver, storage, &vec![9.0; cache]),
        values: upload(driver, storage, &vec![9.0; cache]),
        filled: upload_ints(driver, &filled),
        capacity,
        length,
    };
    let q = upload(driver, storage, &vec![9.0; rows * heads.queries()]);
    rotary_append(driver, storage, [on_card, q], heads, &transforms, &rotary, &to).expect("run");

    let angles = (0..rows * half).map(|at| {
        let (row, pair) = (at / half, at % half);
        angle(positions[row * axes + pair % axes], pair)
    });
    let reference = Reference {
        bias: doubles(&bias),
        norms: norms.map(|norm| doubles(&norm)),
        transformed,
        angles: angles.collect(),
        heads,
    };
    let values = doubles(&qkv);
    let head_of =
        |row: usize, head: usize| &values[(row * all + head) * heads.size..][..heads.size];
    let mut expected_q = vec![9.0; rows * heads.queries()];
    let mut expected = [vec![9.0; cache], vec![9.0; cache]];
    for row in 0..rows {
        let before = filled[row / length];
        if before < 0 {
            continue;
        }
        for head in 0..all {
            let y = reference.rotated(row, head, head_of(row, head));
            if head < heads.heads {
                let at = (row * heads.heads + head) * heads.size;
                expected_q[at..at + heads.size].copy_from_slice(&y);
            } else {
                let key_head = (head - heads.heads) % heads.key_heads;
                let of = &mut expected[usize::from(head >= heads.heads + heads.key_heads)];
                let sequence = row / length * heads.key_heads + key_head;
                let place = before as usize + row % length;
                let at = (sequence * capacity + place) * heads.size;
                of[at..at + heads.size].copy_from_slice(&y);
            }
        }
    }
    let what = format!("{storage:?} {heads:?}");
    let near = tolerance(storage);
    assert_close(&what, &download(driver, storage, q), &expected_q, near);
    for (found, expected) in [to.keys, to.values].into_iter().zip(&expected) {
        assert_close(&what, &download(driver, storage, found), expected, near);
    }

    let by_q = rounded(5, rows * heads.queries(), storage);
    let by_keys = [6, 7].map(|seed| rounded(seed, rows * heads.keys(), storage));
    let gradient = room(driver, storage, rows * heads.fused());
    let buffers = [
        on_card,
        upload(driver, storage, &by_q),
        upload(driver, storage, &by_keys[0]),
        upload(driver, storage, &by_keys[1]),
        gradient,
    ];
    rotary_backward(driver, storage, buffers, length, heads, &transforms, &rotary).expect("run");
    let mut expected = Vec::new();
    for row in 0..rows {
        for head in 0..all {
            let by = if head < heads.heads {
                &by_q[(row * heads.heads + head) * heads.size..][..heads.size]
            } else {
                let key_head = (head - heads.heads) % heads.key_heads;
                let of = &by_keys[usize::from(head >= heads.heads + heads.key_heads)];
                let sequence = row / length * heads.key_heads + key_head;
                &of[(sequence * length + row % length) * heads.size..][..heads.size]
            };
            expected.extend(reference.gradient(row, head, head_of(row, head), doubles(by)));
        }
    }
    let found = download(driver, storage, gradient);
    assert_close(&format!("{what}, gradient"), &found, &expected, near);
}
