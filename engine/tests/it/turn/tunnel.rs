//! A socket for quinn whose packets travel through a TURN server as ChannelData, over UDP or TCP.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use quinn::{AsyncUdpSocket, UdpPoller};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

use super::client::Link;

const HEADER_LEN: usize = 4;

/// Packets that may wait for a TCP stream each way; what is above it is lost, as it would be in a router.
const QUEUE_LEN: usize = 512;

const READER: usize = 0;
const WRITER: usize = 1;

/// The way to the TURN server at the moment.
enum Way {
    Udp {
        socket: UdpSocket,
        state: UdpSocketState,
        server: SocketAddr,
    },
    Tcp {
        out: mpsc::Sender<Vec<u8>>,
        incoming: Mutex<mpsc::Receiver<Vec<u8>>>,
    },
    /// None: what is sent is lost.
    Nowhere,
}

/// See the [module](self).
pub(super) struct Tunnel {
    way: Mutex<Arc<Way>>,
    channel: u16,
    /// Whom the channel is bound to.
    peer: SocketAddr,
    /// Who waits to read and who to write: they are to try again when the way is another.
    waiting: Mutex<[Option<Waker>; 2]>,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Tunnel {
    /// A tunnel to `peer` by the channel that is bound to it. Must be called on a runtime.
    pub(super) fn new(link: &Link, channel: u16, peer: SocketAddr) -> Arc<Tunnel> {
        Arc::new(Tunnel {
            way: Mutex::new(Arc::new(Way::over(link))),
            channel,
            peer,
            waiting: Mutex::default(),
        })
    }

    /// Goes on over another way.
    pub(super) fn resume(&self, link: &Link) {
        self.set_way(Way::over(link));
    }

    /// Loses what is sent, and reads nothing.
    pub(super) fn suspend(&self) {
        self.set_way(Way::Nowhere);
    }

    /// Sends a STUN message.
    pub(super) async fn tell(&self, message: &[u8]) {
        match &*self.way() {
            Way::Udp { socket, .. } => drop(socket.send(message).await),
            Way::Tcp { out, .. } => drop(out.send(message.to_vec()).await),
            Way::Nowhere => {}
        }
    }

    fn way(&self) -> Arc<Way> {
        Arc::clone(&self.way.lock().expect("nobody panics with it"))
    }

    fn set_way(&self, way: Way) {
        *self.way.lock().expect("nobody panics with it") = Arc::new(way);
        let waiting = std::mem::take(&mut *self.waiting.lock().expect("nobody panics with it"));
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    fn remember(&self, which: usize, cx: &Context<'_>) {
        self.waiting.lock().expect("nobody panics with it")[which] = Some(cx.waker().clone());
    }

    /// The packet in a message of the server, if there is one.
    fn payload<'m>(&self, message: &'m [u8]) -> Option<&'m [u8]> {
        let (&[n0, n1, l0, l1], rest) = message.split_first_chunk::<HEADER_LEN>()?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        // What else comes are answers to requests, which are sent again before long whatever becomes of them.
        if u16::from_be_bytes([n0, n1]) == self.channel { rest.get(..len) } else { None }
    }

    /// Takes the headers out of datagrams that lie in a buffer one after another, each `stride` long but the
    /// last. Says how many bytes are left.
    fn unframe(&self, buffer: &mut [u8], len: usize, stride: usize) -> usize {
        let mut end = 0;
        for at in (0..len).step_by(stride.max(1)) {
            let message = &buffer[at..len.min(at + stride)];
            if let Some(payload) = self.payload(message) {
                let payload = at + HEADER_LEN..at + HEADER_LEN + payload.len();
                let len = payload.len();
                buffer.copy_within(payload, end);
                end += len;
            }
        }
        end
    }
}

impl Way {
    fn over(link: &Link) -> Way {
        match link {
            Link::Udp(socket) => {
                let socket = socket.try_clone().expect("a descriptor");
                let server = socket.peer_addr().expect("it is connected");
                socket.set_nonblocking(true).expect("no waiting");
                let state = UdpSocketState::new((&socket).into()).expect("a socket of UDP");
                for set in [UdpSocketState::set_recv_buffer_size, UdpSocketState::set_send_buffer_size] {
                    set(&state, (&socket).into(), 4 << 20).expect("buffers");
                }
                Way::Udp { socket: UdpSocket::from_std(socket).expect("a runtime"), state, server }
            }
            Link::Tcp(stream) => {
                let stream = stream.try_clone().expect("a descriptor");
                stream.set_nonblocking(true).expect("no waiting");
                let stream = TcpStream::from_std(stream).expect("a runtime");
                let (mut from_server, mut to_server) = stream.into_split();
                let (out, mut outgoing) = mpsc::channel::<Vec<u8>>(QUEUE_LEN);
                let (arrived, incoming) = mpsc::channel(QUEUE_LEN);
                tokio::spawn(async move {
                    while let Some(message) = outgoing.recv().await {
                        // RFC 8656 section 12.5: over a stream each message is padded.
                        let mut message = message;
                        message.resize(message.len().next_multiple_of(4), 0);
                        if to_server.write_all(&message).await.is_err() {
                            break;
                        }
                    }
                });
                tokio::spawn(async move {
                    let mut header = [0; HEADER_LEN];
                    while from_server.read_exact(&mut header).await.is_ok() {
                        let stated = usize::from(u16::from_be_bytes([header[2], header[3]]));
                        let len = if header[0] < 0x40 { 20 + stated } else { HEADER_LEN + stated };
                        let mut message = header.to_vec();
                        message.resize(len.next_multiple_of(4), 0);
                        if from_server.read_exact(&mut message[HEADER_LEN..]).await.is_err() {
                            break;
                        }
                        message.truncate(len);
                        if arrived.send(message).await.is_err() {
                            break;
                        }
                    }
                });
                Way::Tcp { out, incoming: Mutex::new(incoming) }
            }
        }
    }
}

impl AsyncUdpSocket for Tunnel {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment_len = transmit.segment_size.unwrap_or(transmit.contents.len());
        let frame = |packet: &[u8]| {
            let [n0, n1] = self.channel.to_be_bytes();
            let [l0, l1] = (packet.len() as u16).to_be_bytes();
            [&[n0, n1, l0, l1], packet].concat()
        };
        let framed = transmit.contents.chunks(segment_len).map(frame);
        match &*self.way() {
            Way::Udp { socket, state, server } => {
                let framed: Vec<u8> = framed.flatten().collect();
                let framed = Transmit {
                    destination: *server,
                    ecn: None,
                    contents: &framed,
                    segment_size: transmit.segment_size.map(|len| len + HEADER_LEN),
                    src_ip: None,
                };
                let sent = socket.try_io(Interest::WRITABLE, || state.try_send(socket.into(), &framed));
                match sent {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
                    // What the network refuses at the moment is lost.
                    _ => Ok(()),
                }
            }
            Way::Tcp { out, .. } => {
                for message in framed {
                    let _ = out.try_send(message);
                }
                Ok(())
            }
            Way::Nowhere => Ok(()),
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.remember(READER, cx);
        let from = |len, stride| RecvMeta { addr: self.peer, len, stride, ecn: None, dst_ip: None };
        match &*self.way() {
            Way::Udp { socket, state, .. } => loop {
                ready!(socket.poll_recv_ready(cx))?;
                let (buffers, meta) = (&mut buffers[..1], &mut meta[..1]);
                // Errors are what ICMP says of packets that were sent: they are lost.
                if socket.try_io(Interest::READABLE, || state.recv(socket.into(), buffers, meta)).is_ok() {
                    let stride = meta[0].stride;
                    let len = self.unframe(&mut buffers[0], meta[0].len, stride);
                    if len > 0 {
                        meta[0] = from(len, stride - HEADER_LEN);
                        return Poll::Ready(Ok(1));
                    }
                }
            },
            Way::Tcp { incoming, .. } => {
                let mut incoming = incoming.lock().expect("nobody panics with it");
                loop {
                    let Some(message) = ready!(incoming.poll_recv(cx)) else { return Poll::Pending };
                    if let Some(payload) = self.payload(&message) {
                        buffers[0][..payload.len()].copy_from_slice(payload);
                        meta[0] = from(payload.len(), payload.len());
                        return Poll::Ready(Ok(1));
                    }
                }
            }
            Way::Nowhere => Poll::Pending,
        }
    }

    /// Where others reach this endpoint is the relay's to say; quinn only asks for the family.
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    fn max_transmit_segments(&self) -> usize {
        match &*self.way() {
            Way::Udp { state, .. } => state.max_gso_segments(),
            Way::Tcp { .. } | Way::Nowhere => 1,
        }
    }

    fn max_receive_segments(&self) -> usize {
        64
    }
}

#[derive(Debug)]
struct Poller(Arc<Tunnel>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.remember(WRITER, cx);
        match &*self.0.way() {
            Way::Udp { socket, .. } => socket.poll_send_ready(cx),
            Way::Tcp { .. } | Way::Nowhere => Poll::Ready(Ok(())),
        }
    }
}
