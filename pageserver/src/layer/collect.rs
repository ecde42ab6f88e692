//! What a read of one key gathers on its way from new to old.

use ids::Lsn;

use crate::value::Value;

/// The values of one key, newest first, down to the first one that stands by itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    newest_first: Vec<(Lsn, Value)>,
    complete: bool,
    goes_below: bool,
}

impl Collected {
    /// Whether nothing older is needed.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Says that an image layer was gone through: nothing older is needed, unless it said so.
    pub(crate) fn end_of_image(&mut self) {
        self.complete |= !std::mem::take(&mut self.goes_below);
    }

    /// Adds what an older (key, LSN) holds. Everything below a complete value is left out.
    pub(crate) fn push(&mut self, lsn: Lsn, values: Vec<Value>) {
        debug_assert!(
            self.newest_first
                .last()
                .is_none_or(|(newer, _)| lsn <= *newer)
        );
        for value in values.into_iter().rev() {
            if self.complete {
                return;
            }
            if value == Value::Below {
                self.goes_below = true;
                continue;
            }
            self.complete = value.is_base();
            self.newest_first.push((lsn, value));
        }
    }

    /// The values in the order in which they apply.
    pub(crate) fn into_oldest_first(mut self) -> Vec<(Lsn, Value)> {
        self.newest_first.reverse();
        self.newest_first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_could_not_be_made_leaves_what_is_below_it() {
        let mut collected = Collected::default();
        collected.push(Lsn(20), vec![Value::Below]);
        collected.end_of_image();
        assert!(!collected.is_complete());
        collected.push(Lsn(10), vec![Value::Zeros]);
        assert!(collected.is_complete());
        assert_eq!(collected.into_oldest_first(), [(Lsn(10), Value::Zeros)]);
        let mut collected = Collected::default();
        collected.end_of_image();
        assert!(collected.is_complete(), "it holds every key");
    }

    #[test]
    fn nothing_below_a_complete_value_is_taken() {
        let mut collected = Collected::default();
        let clear = |heap_block| Value::VmClear {
            heap_block,
            flags: 3,
        };
        collected.push(Lsn(30), vec![clear(1), clear(2)]);
        assert!(!collected.is_complete());
        collected.push(Lsn(20), vec![clear(8), Value::Zeros, clear(9)]);
        assert!(collected.is_complete());
        collected.push(Lsn(10), vec![clear(7)]);
        assert_eq!(
            collected.into_oldest_first(),
            [
                (Lsn(20), Value::Zeros),
                (Lsn(20), clear(9)),
                (Lsn(30), clear(1)),
                (Lsn(30), clear(2))
            ]
        );
    }
}
