//! temp
use crate::client::*; use crate::content::*; use crate::measure::*; use crate::subject::*;
pub fn run() -> anyhow::Result<()> {
    let content = Content::create(std::path::Path::new("/tmp"), 1<<30)?;
    crate::process::pin_to_core(1)?;
    let s = Setting { content: &content, core: 0 };
    let mut servers = vec![("bare", reference::quiche_sender(&s, Protocol::Raw)?), ("bare-h3", reference::quiche_sender(&s, Protocol::Http3)?), ("h3-quinn", reference::h3_quinn(&s)?), ("caddy", caddy::start(&s)?)];
    let rounds: usize = std::env::var("ROUNDS").map_or(2, |v| v.parse().unwrap());
    for c in [1u64, 32] { for w in std::env::var("WINDOWS").unwrap_or("2097152".into()).split(',') { let w: u64 = w.parse()?; let w = if c == 32 { w/4 } else { w };
      for _ in 0..rounds { for (name, server) in &mut servers {
        if let Ok(only) = std::env::var("ONLY") { if !only.split(',').any(|o| o == *name) { continue } }
        let mut load = Load::connect(&server.load(w, 1, false), c as usize)?;
        let n = content.bytes.len() as u64 / c;
        let reqs = (0..c).map(|i| vec![Request::Get { path: server.path.clone(), first: i*n, len: n }]).collect();
        let own = process_cpu_time(std::process::id())?;
        let before = Snapshot::take(server.process.pid(), 0)?;
        let out = load.run(reqs)?;
        let used = Snapshot::take(server.process.pid(), 0)?.since(&before);
        let own = (process_cpu_time(std::process::id())? - own).as_secs_f64();
        let gb = out.bytes as f64 / GB;
        println!("c={c} w={w} {name:10} cpu {:.3} busy {:.3} client {:.3} wall {:.3} GB/s {:.2} dg/ack {:.1} rx {} lost {} sw/GB {:.0}", used.cpu_s/gb, used.core_busy_s/gb, own/gb, out.wall.as_secs_f64(), gb/out.wall.as_secs_f64(), out.datagrams_received as f64/out.datagrams_sent as f64, out.datagrams_received, out.packets_lost, used.switches as f64/gb);
        drop(load); std::thread::sleep(std::time::Duration::from_millis(30));
      } } } }
    Ok(())
}
