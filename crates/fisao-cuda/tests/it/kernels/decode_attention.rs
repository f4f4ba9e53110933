use fisao_cuda::kernels::{DecodingCache, Heads, decode_attention};
use fisao_cuda::{Buffer, Driver, Storage};

use crate::device::{
    STORAGES, assert_close, doubles, download, driver, room, rounded, tolerance, upload,
    upload_ints,
};

/// Sequences behind prompts.
#[derive(Debug, Clone)]
struct Case {
    heads: Heads,
    /// Of the prompts, and room for them.
    prompt: [usize; 2],
    /// Room for own positions.
    capacity: usize,
    /// The prompt of each sequence.
    of: Vec<usize>,
    filled: Vec<i32>,
    padding: Vec<i32>,
    window: Option<usize>,
}

fn cases() -> Vec<Case> {
    let heads = |heads, key_heads, size| Heads { heads, key_heads, size };
    let shared = Case {
        heads: heads(4, 2, 18),
        prompt: [70, 90],
        capacity: 66,
        of: vec![1, 0, 1, 1, 0],
        filled: vec![0, 65, 3, -1, 64],
        padding: vec![0, 3, 69, 0, 64],
        window: None,
    };
    let mut all = vec![
        Case { window: Some(5), ..shared.clone() },
        Case { window: Some(68), heads: heads(6, 1, 64), ..shared.clone() },
        Case { prompt: [0, 0], padding: vec![0; 5], ..shared.clone() },
        Case { prompt: [0, 90], padding: vec![0; 5], ..shared.clone() },
        Case { prompt: [70, 200], ..shared.clone() },
        Case {
            heads: heads(1, 1, 2),
            prompt: [1, 1],
            capacity: 1,
            of: vec![0],
            filled: vec![0],
            padding: vec![0],
            window: None,
        },
    ];
    for size in [80, 88, 96, 128] {
        let (of, filled, padding) = (vec![0, 0], vec![1, 0], vec![0, 0]);
        let heads = heads(2, 2, size);
        all.push(Case { heads, prompt: [9, 9], capacity: 3, of, filled, padding, window: None });
    }
    all.push(shared);
    all
}

fn check(driver: &mut dyn Driver, storage: Storage, case: &Case) {
    let Case { heads, prompt: [length, room_for], capacity, .. } = *case;
    let rows = case.of.len();
    let prompts = case.of.iter().max().map_or(0, |most| most + 1);
    let q = rounded(1, rows * heads.queries(), storage);
    let [prompt_k, prompt_v] =
        [2, 3].map(|seed| rounded(seed, prompts * heads.keys() * room_for, storage));
    let [own_k, own_v] = [4, 5].map(|seed| rounded(seed, rows * heads.keys() * capacity, storage));
    let members: Vec<i32> = (0..prompts)
        .flat_map(|prompt| {
            let open =
                (0..rows).filter(move |&row| case.of[row] == prompt && case.filled[row] >= 0);
            open.map(|row| row as i32)
        })
        .collect();
    let open = |prompt: usize| {
        (0..rows).filter(|&row| case.of[row] == prompt && case.filled[row] >= 0).count()
    };
    let groups: Vec<i32> =
        (0..=prompts).map(|prompt| (0..prompt).map(open).sum::<usize>() as i32).collect();
    let cache = DecodingCache {
        prompt_keys: upload(driver, storage, &prompt_k),
        prompt_values: upload(driver, storage, &prompt_v),
        own_keys: upload(driver, storage, &own_k),
        own_values: upload(driver, storage, &own_v),
        groups: upload_ints(driver, &groups),
        members: upload_ints(driver, &members),
        filled: upload_ints(driver, &case.filled),
        padding: upload_ints(driver, &case.padding),
        prompt_length: upload_ints(driver, &[length as i32]),
        prompts,
        prompt_capacity: room_for,
        capacity,
        window: case.window,
    };
    let bytes = DecodingCache::partial_bytes(rows, heads, [room_for, capacity]);
    let partial = driver.reserve(bytes).expect("memory");
    let queries: Buffer = upload(driver, storage, &q);
    let out = room(driver, storage, q.len());
    decode_attention(driver, storage, [queries, partial, out], rows, heads, &cache).expect("run");

    let size = heads.size;
    let scale = (size as f64).sqrt().recip();
    let mut expected = vec![0.0; q.len()];
    let (q, own) = (doubles(&q), [doubles(&own_k), doubles(&own_v)]);
    let prompt = [doubles(&prompt_k), doubles(&prompt_v)];
    for row in 0..rows {
        let Ok(filled) = usize::try_from(case.filled[row]) else { continue };
        let at = length + filled;
        let first = (at + 1).saturating_sub(case.window.unwrap_or(usize::MAX));
        let first = first.max(case.padding[row] as usize);
        for head in 0..heads.heads {
            let key_head = head / (heads.heads / heads.key_heads);
            let place = |which: usize, key: usize| {
                if key < length {
                    let at = (case.of[row] * heads.key_heads + key_head) * room_for + key;
                    &prompt[which][at * size..][..size]
                } else {
                    let at = (row * heads.key_heads + key_head) * capacity + key - length;
                    &own[which][at * size..][..size]
                }
            };
            let query = &q[(row * heads.heads + head) * size..][..size];
            let score = |key: usize| {
                let products = query.iter().zip(place(0, key)).map(|(x, y)| x * y);
                products.sum::<f64>() * scale
            };
            let weights: Vec<f64> = (first..=at).map(|key| score(key).exp()).collect();
            let total: f64 = weights.iter().sum();
            let out = &mut expected[(row * heads.heads + head) * size..][..size];
            for (key, weight) in (first..=at).zip(&weights) {
                for (out, v) in out.iter_mut().zip(place(1, key)) {
                    *out += weight / total * v;
                }
            }
        }
    }
    let found = download(driver, storage, out);
    assert_close(&format!("{storage:?} {case:?}"), &found, &expected, tolerance(storage));
}

#[test]
fn decoding_attends_to_prompt_and_own_positions() {
    let Some(mut driver) = driver("decoding_attends_to_prompt_and_own_positions") else { return };
    for storage in STORAGES {
        for case in &cases() {
            check(&mut driver, storage, case);
        }
    }
}
