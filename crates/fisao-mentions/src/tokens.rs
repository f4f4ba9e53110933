//! Which tokens spell a mention.

use std::ops::Range;

/// Tokens of a response, ready to be asked which of them meet a mention.
#[derive(Debug)]
pub(crate) struct SpellingTokens<'a> {
    spans: &'a [Range<usize>],
    /// Those that spell something, if some do not.
    spelling: Option<Vec<usize>>,
    /// Whether those come in the order of the text, as a tokenizer gives them.
    ordered: bool,
}

impl<'a> SpellingTokens<'a> {
    pub(crate) fn new(spans: &'a [Range<usize>]) -> Self {
        let spells = |at: &usize| !spans[*at].is_empty();
        let some_do_not = spans.iter().any(Range::is_empty);
        let spelling = some_do_not.then(|| (0..spans.len()).filter(spells).collect());
        let ordered = spans
            .iter()
            .filter(|span| !span.is_empty())
            .is_sorted_by(|left, right| left.start <= right.start && left.end <= right.end);
        Self { spans, spelling, ordered }
    }

    /// First to last token whose bytes meet `span`, which is not empty. `None` if no token does.
    pub(crate) fn meeting(&self, span: &Range<usize>) -> Option<Range<usize>> {
        let (first, last) = match &self.spelling {
            None => self.ends(self.spans, span, Range::clone)?,
            Some(spelling) => {
                let (first, last) = self.ends(spelling, span, |&at| self.spans[at].clone())?;
                (spelling[first], spelling[last])
            }
        };
        Some(first..last + 1)
    }

    /// Index of the first and of the last token that meets `span`, of tokens that all spell.
    fn ends<T>(
        &self,
        tokens: &[T],
        span: &Range<usize>,
        of: impl Fn(&T) -> Range<usize>,
    ) -> Option<(usize, usize)> {
        let ends_before = |token: &T| of(token).end <= span.start;
        let begins_before_end = |token: &T| of(token).start < span.end;
        if self.ordered {
            let first = tokens.partition_point(ends_before);
            let past = tokens.partition_point(begins_before_end);
            return (first < past).then(|| (first, past - 1));
        }
        let meets = |token: &T| begins_before_end(token) && !ends_before(token);
        Some((tokens.iter().position(meets)?, tokens.iter().rposition(meets)?))
    }
}
