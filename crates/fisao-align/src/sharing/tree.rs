//! How what all processes are told, and what is added up over all of them, gets around: along a binomial tree, of which process 0 is the root. With
//! twice as many processes it takes one more step, where process 0 alone would take twice as many.

/// Whom a process has adapters from, and hands gradients to.
pub(crate) fn parent(process: usize) -> usize {
    // Without its lowest bit.
    process & process.wrapping_sub(1)
}

/// Whom a process hands adapters to, and has gradients from, the nearest first. The processes below it are those between it and the
/// next one that is not below it.
pub(crate) fn children(process: usize, processes: usize) -> impl Iterator<Item = usize> {
    let most = if process == 0 { processes } else { 1 << process.trailing_zeros() };
    let steps = std::iter::successors(Some(1), |step| Some(2 * step));
    steps
        .take_while(move |&step| step < most)
        .map(move |step| process + step)
        .take_while(move |&child| child < processes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_process_is_the_child_of_its_parent_and_of_no_other() {
        for processes in 1..70 {
            let mut found = vec![0; processes];
            for process in 0..processes {
                for child in children(process, processes) {
                    assert_eq!(parent(child), process, "of {processes}");
                    found[child] += 1;
                }
            }
            assert_eq!(found[0], 0);
            assert!(found[1..].iter().all(|&times| times == 1), "{found:?}");
        }
        assert_eq!(children(0, 512).count(), 9);
        assert_eq!(children(4, 7).collect::<Vec<_>>(), [5, 6]);
    }
}
