//! PostgreSQL's own compression, the reading half.
//!
//! A control byte governs eight items, lowest bit first. A clear bit is one literal byte. A set
//! bit is a copy from what was already written: two bytes hold a length of 3 to 17 and an offset
//! of 1 to 4095, and the length 18 says that a third byte is to be added to it.

/// The compressed bytes do not make what they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PglzError {
    /// The input ends inside an item.
    #[error("compressed bytes end inside an item")]
    Truncated,
    /// A copy begins before the output does, or at its end.
    #[error("a copy reaches before the beginning of the output")]
    BadOffset,
    /// The output is not as long as it must be, or input is left over.
    #[error("compressed bytes do not make {expected} bytes")]
    WrongLength {
        /// What they should make.
        expected: usize,
    },
}

/// Fills `output` from `input`, which must make exactly as many bytes.
pub fn decompress(input: &[u8], output: &mut [u8]) -> Result<(), PglzError> {
    let expected = output.len();
    let mut bytes = input.iter().copied();
    let mut written = 0;
    while written < expected {
        let control = bytes.next().ok_or(PglzError::Truncated)?;
        for bit in 0..8 {
            if written == expected {
                break;
            }
            if control >> bit & 1 == 0 {
                let literal = bytes.next().ok_or(PglzError::Truncated)?;
                *output
                    .get_mut(written)
                    .ok_or(PglzError::WrongLength { expected })? = literal;
                written += 1;
            } else {
                written = copy(&mut bytes, output, written)?;
            }
        }
    }
    if bytes.next().is_some() {
        return Err(PglzError::WrongLength { expected });
    }
    Ok(())
}

/// One copy; answers how much is written after it.
fn copy(
    bytes: &mut impl Iterator<Item = u8>,
    output: &mut [u8],
    written: usize,
) -> Result<usize, PglzError> {
    let mut next = || bytes.next().map(usize::from).ok_or(PglzError::Truncated);
    let (first, second) = (next()?, next()?);
    let offset = (first & 0xF0) << 4 | second;
    let mut length = (first & 0x0F) + 3;
    if length == 18 {
        length += next()?;
    }
    if offset == 0 || offset > written {
        return Err(PglzError::BadOffset);
    }
    // PostgreSQL cuts the last copy at the end of the output.
    let end = output.len().min(written + length);
    // The copy may read what it writes: that is how runs are made. So byte by byte.
    for at in written..end {
        output[at] = output[at - offset];
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_may_read_what_it_writes() {
        let mut output = [0; 24];
        // Literal 'a', 'b', then copy 22 from 2 back: length nibble 15 is 18, plus 4.
        let input = [0b100, b'a', b'b', 0x0F, 2, 4];
        assert_eq!(decompress(&input, &mut output), Ok(()));
        assert_eq!(&output, b"abababababababababababab");
    }

    #[test]
    fn bytes_that_make_something_else_are_refused() {
        let mut output = [0; 3];
        // Each row: input, why it is wrong.
        for (input, error) in [
            (&[][..], PglzError::Truncated),
            (&[0, b'a'][..], PglzError::Truncated),
            (&[1, 0x00][..], PglzError::Truncated),
            (&[1, 0x00, 1][..], PglzError::BadOffset), // nothing written yet
            (&[2, b'a', 0x00, 0][..], PglzError::BadOffset), // zero
            (&[0, 1, 2, 3, 4][..], PglzError::WrongLength { expected: 3 }), // left over
        ] {
            assert_eq!(decompress(input, &mut output), Err(error), "{input:?}");
        }
    }
}
