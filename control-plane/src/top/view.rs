//! The screen of `ioex top`: a picture laid out on cells. Nothing here asks anybody anything.

use super::picture::{Picture, ShardPart};
use crate::quantity::{show_bytes, show_seconds, show_thousands};
use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Paragraph, Row, Table, Widget};

/// Rows of the parts below the shards, with their frames.
const PARTS_HEIGHT: u16 = 8;

/// The most losses that are shown, and the rows of their part with its frame.
const LOSSES_MAX: u16 = 5;
const LOSSES_HEIGHT: u16 = LOSSES_MAX + 2;

/// Rows that show everything of a picture.
#[must_use]
pub fn height(picture: &Picture) -> u16 {
    2 + shards_height(picture) + PARTS_HEIGHT + LOSSES_HEIGHT
}

/// Draws it. `problem` says why the picture is an old one. Columns and rows that have no room are left out at the right and at the
/// bottom.
pub fn draw(picture: &Picture, problem: Option<&str>, area: Rect, buffer: &mut Buffer) {
    // Shards give way to what is below them, down to the row of all of them.
    let room = area.height.saturating_sub(2 + PARTS_HEIGHT + LOSSES_HEIGHT);
    let shards_height = shards_height(picture).min(room.max(4));
    let mut left = area;
    let mut take = |rows: u16| {
        let taken = Rect { height: rows.min(left.height), ..left };
        left = Rect { y: left.y + taken.height, height: left.height - taken.height, ..left };
        taken
    };
    let [head, place, shards, parts, losses] =
        [1, 1, shards_height, PARTS_HEIGHT, LOSSES_HEIGHT].map(&mut take);
    draw_head(picture, head, buffer);
    match problem {
        Some(problem) => Line::from(format!(" {problem}")).fg(Color::Red).render(place, buffer),
        None => Line::from(format!(" {}", places(picture))).render(place, buffer),
    }
    draw_shards(picture, shards, buffer);
    let [sessions, store, network] = Layout::horizontal([Constraint::Fill(1); 3]).areas(parts);
    frame(" sessions ", sessions_text(picture), sessions, buffer);
    frame(" store ", store_text(picture), store, buffer);
    frame(" network ", network_text(picture), network, buffer);
    draw_losses(picture, losses, buffer);
}

fn draw_head(picture: &Picture, area: Rect, buffer: &mut Buffer) {
    let node = &picture.node;
    let state = match (node.policy_expired, node.draining) {
        (true, _) => " EXPIRED",
        (false, true) => "  DRAINS",
        (false, false) => "",
    };
    let text = format!(
        " ioex {}  {}  up {}  policy {}{state}  {}",
        node.version,
        node.driver,
        show_seconds(node.uptime_s as f64),
        node.policy_generation,
        node.uid,
    );
    Line::from(text).bold().render(area, buffer);
}

/// Where it listens, each port once.
fn places(picture: &Picture) -> String {
    let udp = picture.node.listeners.iter().filter(|listener| listener.starts_with("udp://"));
    udp.chain(&picture.node.relay).map(String::as_str).collect::<Vec<_>>().join("  ")
}

/// Head, all of them, each of them if there are several, and the frame.
fn shards_height(picture: &Picture) -> u16 {
    let rows = if picture.shards.len() > 1 { picture.shards.len() } else { 0 };
    u16::try_from(rows).unwrap_or(u16::MAX - 4).saturating_add(4)
}

fn draw_shards(picture: &Picture, area: Rect, buffer: &mut Buffer) {
    let cells = |name: &str, part: &ShardPart| {
        let texts = [
            name.to_string(),
            format!("{:.0} %", part.busy_percent),
            part.connections.to_string(),
            show_thousands(part.received_datagrams_per_s),
            show_thousands(part.received_bits_per_s),
            show_thousands(part.sent_datagrams_per_s),
            show_thousands(part.sent_bits_per_s),
            part.relay_allocations.to_string(),
            show_thousands(part.relayed_bits_per_s),
        ];
        let row = Row::new(texts.map(|text| Text::from(text).alignment(Alignment::Right)));
        row.style(Style::new().fg(load_color(part.busy_percent)))
    };
    let names =
        ["SHARD", "BUSY", "CONNS", "IN pkt/s", "IN bit/s", "OUT pkt/s", "OUT bit/s", "RELAYS", "RELAY bit/s"];
    let head = Row::new(names.map(|name| Text::from(name).alignment(Alignment::Right))).bold();
    let each = picture.shards.iter().enumerate().map(|(i, part)| cells(&i.to_string(), part));
    let each = each.filter(|_| picture.shards.len() > 1);
    let rows = std::iter::once(cells("all", &picture.all_shards)).chain(each);
    let cpu = &picture.cpu;
    let title = format!(
        " shards; CPU {:.0} % of a core, services {:.0} %, storage {:.0} % ",
        cpu.shards_percent, cpu.services_percent, cpu.storage_percent
    );
    Table::new(rows, [5, 5, 6, 8, 8, 9, 9, 6, 11].map(Constraint::Length))
        .header(head)
        .column_spacing(1)
        .block(Block::bordered().title(title))
        .render(area, buffer);
}

/// A shard that is always awake has nothing left to give.
fn load_color(busy_percent: f64) -> Color {
    match busy_percent {
        90.0.. => Color::Red,
        70.0.. => Color::Yellow,
        _ => Color::Reset,
    }
}

fn sessions_text(picture: &Picture) -> Vec<String> {
    let sessions = &picture.sessions;
    vec![
        format!("content  {} QUIC, {} TCP", sessions.quic, sessions.tcp),
        format!("requests {}/s", show_thousands(sessions.requests_per_s)),
        format!("bodies   {}bit/s", show_thousands(sessions.body_bits_per_s)),
        format!("relay    {} allocations", sessions.relay_allocations),
        format!("streams  {} of its clients", sessions.relay_streams),
        format!("mailbox  {}, {}/s", sessions.mailbox, show_thousands(sessions.envelopes_per_s)),
    ]
}

fn store_text(picture: &Picture) -> Vec<String> {
    let store = &picture.store;
    let percent =
        if store.bytes_max == 0 { 0.0 } else { store.bytes as f64 / store.bytes_max as f64 * 100.0 };
    vec![
        format!("holds    {}, {percent:.0} %", show_bytes(store.bytes)),
        format!("segments {}", store.segments),
        format!("packs    {}", store.packs),
        format!("damaged  {}", store.quarantined),
        format!("reads    {}/s", show_thousands(store.loads_per_s)),
        format!("writes   {}/s", show_thousands(store.appends_per_s)),
    ]
}

fn network_text(picture: &Picture) -> Vec<String> {
    let mut lines = Vec::new();
    match &picture.dht {
        Some(dht) => {
            lines.push(format!("DHT      {} of about {}", dht.nodes, dht.network_nodes_estimate));
            lines.push(format!("record   {}", if dht.published { "published" } else { "not published" }));
            lines.push(format!("lists    {}", dht.lists));
        }
        None => lines.push("DHT      off".into()),
    }
    match &picture.friends {
        Some(friends) => {
            lines.push(format!("mailbox  {}", if friends.connected { "connected" } else { "not connected" }));
            lines.push(format!("friends  {} of {} online", friends.online, friends.friends));
            lines.push(format!("requests {}", friends.asking));
        }
        None => lines.push("friends  off".into()),
    }
    lines
}

fn draw_losses(picture: &Picture, area: Rect, buffer: &mut Buffer) {
    let shown = picture.losses.iter().take(usize::from(LOSSES_MAX)).map(|loss| {
        let colon = if loss.cause.is_empty() { "" } else { ": " };
        let (rate, total) = (show_thousands(loss.per_s), show_thousands(loss.total as f64));
        let line = Line::from(format!("{rate:>7}/s {total:>7} in all  {}{colon}{}", loss.what, loss.cause));
        if loss.per_s > 0.0 { line.fg(Color::Yellow) } else { line }
    });
    let mut lines: Vec<_> = shown.collect();
    if lines.is_empty() {
        lines.push(Line::from("nothing since the engine's start"));
    }
    // What is not known is more than what is lost.
    lines.splice(0..0, picture.notes.iter().map(|note| Line::from(note.as_str()).fg(Color::Red)));
    let block = Block::bordered().title(" lost, refused or cut short ");
    Paragraph::new(lines).block(block).render(area, buffer);
}

fn frame(title: &str, lines: Vec<String>, area: Rect, buffer: &mut Buffer) {
    let lines: Vec<_> = lines.into_iter().map(Line::from).collect();
    Paragraph::new(lines).block(Block::bordered().title(title)).render(area, buffer);
}
