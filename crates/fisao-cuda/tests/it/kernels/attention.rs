use fisao_cuda::kernels::{
    AttentionGradients, Heads, Segments, Sequences, attention, attention_backward, cross_attention,
};
use fisao_cuda::{Buffer, CudaError, Driver, Storage};

use crate::device::{
    STORAGES, assert_close, doubles, download, driver, room, rounded, tolerance, upload,
    upload_ints,
};

/// One case.
#[derive(Debug, Clone)]
struct Case {
    heads: Heads,
    length: usize,
    capacity: usize,
    padding: Vec<i32>,
    window: Option<usize>,
    causal: bool,
    segments: Option<Segments>,
}

fn heads(heads: usize, key_heads: usize, size: usize) -> Heads {
    Heads { heads, key_heads, size }
}

fn case(heads: Heads, length: usize, padding: &[i32]) -> Case {
    Case {
        heads,
        length,
        capacity: length,
        padding: padding.to_vec(),
        window: None,
        causal: true,
        segments: None,
    }
}

/// Odd sizes, one row, nothing, groups of heads, every width of heads, windows, padding.
fn cases() -> Vec<Case> {
    let mut all = vec![
        case(heads(1, 1, 2), 1, &[0]),
        case(heads(2, 1, 18), 0, &[0]),
        case(heads(4, 2, 18), 67, &[0, 5]),
        Case { capacity: 80, ..case(heads(2, 2, 32), 70, &[66, 0]) },
        Case { window: Some(7), ..case(heads(2, 1, 64), 130, &[3]) },
        Case { causal: false, ..case(heads(1, 1, 64), 77, &[0, 9]) },
        case(heads(3, 1, 64), 65, &[0]),
    ];
    // Segments shorter and longer than a tile, with and without a window, the last one cut short.
    for (prefix, length, window) in
        [(50, 20, None), (70, 66, None), (1, 7, Some(9)), (40, 70, Some(30)), (0, 33, None)]
    {
        let segments = Some(Segments { prefix, length });
        all.push(Case { window, segments, ..case(heads(2, 1, 18), 215, &[1, 0]) });
    }
    for size in [80, 88, 96, 128] {
        all.push(case(heads(2, 1, size), 33, &[1]));
    }
    all
}

impl Case {
    fn sees(&self, sequence: usize, query: usize, key: usize) -> bool {
        let padding = self.padding[sequence] as usize;
        let Segments { prefix, length } =
            self.segments.unwrap_or(Segments { prefix: usize::MAX, length: 1 });
        // Segment, if it is one, and position.
        let place = |at: usize| {
            at.checked_sub(prefix)
                .map_or((None, at), |behind| (Some(behind / length), prefix + behind % length))
        };
        let ((query_segment, query), (key_segment, key_position)) = (place(query), place(key));
        let first = (query + 1).saturating_sub(self.window.unwrap_or(usize::MAX));
        let same = key_segment.is_none() || key_segment == query_segment;
        key >= padding && (!self.causal || (same && key_position <= query && key_position >= first))
    }

    fn rows(&self) -> usize {
        self.padding.len() * self.length
    }
}

/// Attention and its gradients in f64, with keys and values as `[batch, key heads, length, size]`.
struct Reference {
    out: Vec<f64>,
    by_q: Vec<f64>,
    by_k: Vec<f64>,
    by_v: Vec<f64>,
}

fn reference(case: &Case, [q, k, v, by_out]: [&[f64]; 4]) -> Reference {
    let Heads { heads, key_heads, size } = case.heads;
    let length = case.length;
    let scale = (size as f64).sqrt().recip();
    let mut all = Reference {
        out: vec![0.0; q.len()],
        by_q: vec![0.0; q.len()],
        by_k: vec![0.0; k.len()],
        by_v: vec![0.0; v.len()],
    };
    for sequence in 0..case.padding.len() {
        for head in 0..heads {
            let key_head = head / (heads / key_heads);
            for query in 0..length {
                let row = ((sequence * length + query) * heads + head) * size;
                let key_at = |key: usize| ((sequence * key_heads + key_head) * length + key) * size;
                let seen: Vec<usize> =
                    (0..length).filter(|&key| case.sees(sequence, query, key)).collect();
                let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
                let at = |x: &'_ [f64], first: usize| x[first..first + size].to_vec();
                let scores: Vec<f64> =
                    seen.iter().map(|&key| dot(&at(q, row), &at(k, key_at(key))) * scale).collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|score| (score - most).exp()).sum();
                let weights: Vec<f64> =
                    scores.iter().map(|score| (score - most).exp() / total).collect();
                for (&key, weight) in seen.iter().zip(&weights) {
                    for i in 0..size {
                        all.out[row + i] += weight * v[key_at(key) + i];
                    }
                }
                let delta = dot(&at(by_out, row), &all.out[row..row + size]);
                for (&key, weight) in seen.iter().zip(&weights) {
                    let by_weight = dot(&at(by_out, row), &at(v, key_at(key)));
                    let by_score = weight * (by_weight - delta) * scale;
                    for i in 0..size {
                        all.by_v[key_at(key) + i] += weight * by_out[row + i];
                        all.by_q[row + i] += by_score * k[key_at(key) + i];
                        all.by_k[key_at(key) + i] += by_score * q[row + i];
                    }
                }
            }
        }
    }
    all
}

/// Puts `[heads, length, size]` into room for `capacity` positions, and NaN behind them.
fn in_room(x: &[f32], length: usize, capacity: usize, size: usize) -> Vec<f32> {
    if length == 0 {
        return Vec::new();
    }
    let heads = x.chunks_exact(length * size);
    let rest = vec![f32::NAN; (capacity - length) * size];
    heads.flat_map(|head| head.iter().chain(&rest).copied().collect::<Vec<_>>()).collect()
}

fn check(driver: &mut dyn Driver, storage: Storage, case: &Case) {
    let Case { heads, length, capacity, .. } = *case;
    let rows = case.rows();
    let [q, by_out] = [1, 2].map(|seed| rounded(seed, rows * heads.queries(), storage));
    let [k, v] = [3, 4].map(|seed| rounded(seed, rows * heads.keys(), storage));
    let expected = {
        let [q, k, v, by_out] = [&q, &k, &v, &by_out].map(|x| doubles(x));
        reference(case, [&q, &k, &v, &by_out])
    };
    let [keys, values] = [&k, &v].map(|x| in_room(x, length, capacity, heads.size));
    let sequences = Sequences {
        batch: case.padding.len(),
        length,
        capacity,
        padding: upload_ints(driver, &case.padding),
        window: case.window,
        causal: case.causal,
        segments: case.segments,
    };
    let gradients = AttentionGradients {
        q: upload(driver, storage, &q),
        k: upload(driver, storage, &keys),
        v: upload(driver, storage, &values),
        out: room(driver, storage, q.len()),
        log_sums: room(driver, Storage::F32, rows * heads.heads),
        by_out: upload(driver, storage, &by_out),
        deltas: room(driver, Storage::F32, rows * heads.heads),
        by_q: room(driver, storage, q.len()),
        by_k: room(driver, storage, k.len()),
        by_v: room(driver, storage, v.len()),
    };
    let AttentionGradients { q, k, v, out, log_sums, .. } = gradients;
    attention(driver, storage, [q, k, v, out, log_sums], heads, &sequences).expect("run");
    let what = format!("{storage:?} {case:?}");
    // Weights are rounded as well as results.
    let near = 2.0 * tolerance(storage);
    assert_close(&what, &download(driver, storage, out), &expected.out, near);
    attention_backward(driver, storage, &gradients, heads, &sequences).expect("run");
    for (name, found, expected) in [
        ("by_q", gradients.by_q, &expected.by_q),
        ("by_k", gradients.by_k, &expected.by_k),
        ("by_v", gradients.by_v, &expected.by_v),
    ] {
        let found = download(driver, storage, found);
        assert_close(&format!("{what}, {name}"), &found, expected, 2.0 * near);
    }
}

#[test]
fn attention_and_its_gradients_in_f32() {
    let Some(mut driver) = driver("attention_and_its_gradients_in_f32") else { return };
    for case in &cases() {
        check(&mut driver, Storage::F32, case);
    }
}

#[test]
fn attention_and_its_gradients_in_bf16() {
    let Some(mut driver) = driver("attention_and_its_gradients_in_bf16") else { return };
    for case in &cases() {
        check(&mut driver, Storage::Bf16, case);
    }
}

#[test]
fn attention_and_its_gradients_in_f16() {
    let Some(mut driver) = driver("attention_and_its_gradients_in_f16") else { return };
    for case in &cases() {
        check(&mut driver, Storage::F16, case);
    }
}

#[test]
fn wide_heads_are_refused() {
    let Some(mut driver) = driver("wide_heads_are_refused") else { return };
    let sequences = Sequences {
        batch: 1,
        length: 1,
        capacity: 1,
        padding: Buffer::NULL,
        window: None,
        causal: true,
        segments: None,
    };
    for storage in STORAGES {
        let buffers = [Buffer::NULL; 5];
        let refused = attention(&mut driver, storage, buffers, heads(1, 1, 130), &sequences);
        assert!(
            matches!(&refused, Err(CudaError::Unsupported { found, .. }) if found == "130"),
            "{refused:?}"
        );
    }
}

/// Queries of one sequence that read another, as those of a Q-Former read an image.
#[test]
fn attention_to_other_sequences() {
    let Some(mut driver) = driver("attention_to_other_sequences") else { return };
    for storage in STORAGES {
        for (heads, [batch, queries, keys]) in [
            (heads(2, 2, 64), [2, 32, 257]),
            (heads(3, 3, 6), [1, 1, 1]),
            (heads(2, 1, 88), [3, 70, 5]),
            (heads(1, 1, 32), [0, 3, 4]),
            (heads(1, 1, 32), [2, 0, 4]),
        ] {
            let size = heads.size;
            let q = rounded(1, batch * queries * heads.queries(), storage);
            let [k, v] = [2, 3].map(|seed| rounded(seed, batch * keys * heads.keys(), storage));
            let [on_q, on_k, on_v] = [&q, &k, &v].map(|x| upload(&mut driver, storage, x));
            let out = room(&mut driver, storage, q.len());
            let padding = upload_ints(&mut driver, &vec![0; batch]);
            let buffers = [on_q, on_k, on_v, out, padding];
            cross_attention(&mut driver, storage, buffers, heads, [batch, queries, keys])
                .expect("run");
            let [q, k, v] = [&q, &k, &v].map(|x| doubles(x));
            let mut expected = Vec::new();
            for row in 0..batch * queries * heads.heads {
                let (sequence, head) = (row / heads.heads / queries, row % heads.heads);
                let key_head = head / (heads.heads / heads.key_heads);
                let at = |key| ((sequence * heads.key_heads + key_head) * keys + key) * size;
                let dot = |key| (0..size).map(|i| q[row * size + i] * k[at(key) + i]).sum::<f64>();
                let weights: Vec<f64> =
                    (0..keys).map(|key| (dot(key) / (size as f64).sqrt()).exp()).collect();
                let total: f64 = weights.iter().sum();
                let mixed = |i| (0..keys).map(|key| weights[key] * v[at(key) + i]).sum::<f64>();
                expected.extend((0..size).map(|i| mixed(i) / total));
            }
            let what = format!("{storage:?} {heads:?} {batch} × {queries} × {keys}");
            let near = 2.0 * tolerance(storage);
            assert_close(&what, &download(&mut driver, storage, out), &expected, near);
        }
    }
}
