//! How body bytes reach quiche without being copied: its send queues hold reference-counted slices of mapped packs, and
//! each chunk is counted from when it is handed over until the last of it has been acknowledged.

use bytes::Bytes;
use std::cell::Cell;
use std::rc::Rc;

/// A QUIC connection whose stream buffers are [`Slice`]s.
pub type QuicConnection = quiche::Connection<Shared>;

/// Makes quiche queue reference-counted buffers. Frame headers and the other few bytes that quiche or its HTTP/3 layer
/// write by slice are copied; bodies go through `send_body_zc` and are not, until they are written into a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared;

impl quiche::BufFactory for Shared {
    type Buf = Slice;
    type DgramBuf = Vec<u8>;

    fn buf_from_slice(buf: &[u8]) -> Slice {
        Slice { bytes: Bytes::copy_from_slice(buf), _chunk: None }
    }

    fn dgram_buf_from_slice(buf: &[u8]) -> Vec<u8> {
        buf.to_vec()
    }
}

/// Bytes in a send queue.
#[derive(Clone, Debug)]
pub struct Slice {
    bytes: Bytes,
    /// Counted while any clone of this slice lives.
    _chunk: Option<Rc<Chunk>>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl quiche::BufSplit for Slice {
    /// What is split off has not been handed over, so it is not counted.
    fn split_at(&mut self, at: usize) -> Self {
        Self { bytes: self.bytes.split_off(at), _chunk: None }
    }
}

/// Bytes of bodies that quiche holds for one connection: handed over and not yet acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Outstanding(Rc<Cell<usize>>);

#[derive(Debug)]
struct Chunk {
    len: Cell<usize>,
    outstanding: Outstanding,
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let total = &self.outstanding.0;
        total.set(total.get() - self.len.get());
    }
}

impl Outstanding {
    /// How many bytes.
    pub fn get(&self) -> usize {
        self.0.get()
    }

    /// Offers the first `len_max` bytes of `body` to `send`, which hands them to quiche and says how many it took
    /// (`send_body_zc` leaves the body as it was after a full write and the rest of it after a partial one: only the
    /// number counts). Takes that many off `body`.
    ///
    /// # Errors
    /// Whatever `send` returns; `body` is then as it was.
    pub fn hand_over<E>(
        &self,
        body: &mut Bytes,
        len_max: usize,
        send: impl FnOnce(&mut Slice) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let chunk = Rc::new(Chunk { len: Cell::new(0), outstanding: self.clone() });
        let len = body.len().min(len_max);
        let mut slice = Slice { bytes: body.slice(..len), _chunk: Some(Rc::clone(&chunk)) };
        let taken = send(&mut slice)?;
        drop(slice);
        chunk.len.set(taken);
        self.0.set(self.0.get() + taken);
        bytes::Buf::advance(body, taken);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quiche::BufSplit;

    #[test]
    fn counts_from_handing_over_to_the_last_clone() {
        let outstanding = Outstanding::default();
        let mut body = Bytes::from_static(b"0123456789");
        let mut queue = Vec::new();
        let taken = outstanding.hand_over(&mut body, 8, |slice| {
            let rest = slice.split_at(6);
            queue.push(slice.clone());
            *slice = rest;
            Ok::<_, ()>(6)
        });
        assert_eq!((taken, body.as_ref(), outstanding.get()), (Ok(6), &b"6789"[..], 6));
        // quiche clones a buffer when it splits it for a retransmission.
        queue.push(queue[0].clone());
        queue.remove(0);
        assert_eq!(outstanding.get(), 6);
        queue.clear();
        assert_eq!(outstanding.get(), 0);

        assert_eq!(outstanding.hand_over(&mut body, 8, |_| Err(())), Err(()));
        assert_eq!((body.as_ref(), outstanding.get()), (&b"6789"[..], 0));
    }
}
