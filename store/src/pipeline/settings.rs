//! What a publisher chooses.

use crate::erasure::{Code, ErasureError, Shape};
use crate::list::{Chunking, GroupSizeError, group_len};
use crate::{Hash, SEGMENT_LEN_DEFAULT, SEGMENT_LEN_MAX};

/// Whether segments are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionChoice {
    /// No.
    Off,
    /// With zstd at this level (1 to 22, or negative for speed); segments that it does not make shorter are stored as they are.
    Level(i32),
    /// As `Level`, unless a sample of the file's beginning says that it saves less than a 32nd.
    IfItHelps(i32),
}

/// What is done to a file, apart from its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How the file is cut. [`Chunking::Fixed`] cuts every `segment_len` bytes. Content-defined chunks have a power of two as their average.
    pub chunking: Chunking,
    /// Length of segments where they are cut evenly, in bytes, 1 to 16 MiB, the tag included. Powers of two from 4 KiB on are fastest.
    pub segment_len: u32,
    /// Whether segments are compressed.
    pub compression: CompressionChoice,
    /// Code and shape of the groups, if there is to be parity.
    pub coding: Option<(Code, Shape)>,
    /// Whether outboards are made.
    pub outboards: bool,
    /// Whether plain hashes are made, by which a receiver finds in an older file what it has, where segments are compressed or encrypted. They cost
    /// another hashing.
    pub plain_hashes: bool,
    /// Threads that work; 0: as many as there are cores.
    pub threads: usize,
    /// Bytes of segments in flight, about; at least two groups are, whatever this says.
    pub memory_max: usize,
}

impl Default for Settings {
    /// Segments of 1 MiB, 10+4, compressed if it helps, with outboards.
    fn default() -> Settings {
        let shape = Shape { data: 10, parity: 4 };
        Settings {
            chunking: Chunking::Fixed,
            segment_len: SEGMENT_LEN_DEFAULT,
            compression: CompressionChoice::IfItHelps(3),
            coding: Some((Code::fastest_for(shape), shape)),
            outboards: true,
            plain_hashes: false,
            threads: 0,
            memory_max: 128 << 20,
        }
    }
}

/// Settings that do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The segment length is out of its range.
    #[error("segments of {len} bytes: 1 to {len_max} bytes can be stored, a tag of 16 included")]
    SegmentLen {
        /// What was chosen, or four times the average of chunks, and the tag.
        len: u64,
        /// Longest segment.
        len_max: u32,
    },
    /// The average of content-defined chunks.
    #[error("an average chunk of {average} bytes: choose a power of two from 1024 to 4194304")]
    Average {
        /// What was chosen.
        average: u32,
    },
    /// The level of zstd.
    #[error("zstd has no level {level}: choose {min} to {max}")]
    Level {
        /// What was chosen.
        level: i32,
        /// Fastest.
        min: i32,
        /// Most thorough.
        max: i32,
    },
    /// The code has no such shape.
    #[error(transparent)]
    Shape(#[from] ErasureError),
    /// Groups are too large.
    #[error(transparent)]
    Group(#[from] GroupSizeError),
}

impl Settings {
    /// Whether a publication can be made with these. `tag_len` is what encryption adds to a segment.
    pub(super) fn check(&self, tag_len: usize) -> Result<(), SettingsError> {
        if let Chunking::FastCdc { average } = self.chunking
            && !(average.is_power_of_two()
                && (Chunking::AVERAGE_MIN..=Chunking::AVERAGE_MAX).contains(&average))
        {
            return Err(SettingsError::Average { average });
        }
        let stored_max = self.plain_len_max() as u64 + tag_len as u64;
        if self.plain_len_max() == 0 || stored_max > u64::from(SEGMENT_LEN_MAX) {
            return Err(SettingsError::SegmentLen { len: stored_max, len_max: SEGMENT_LEN_MAX });
        }
        if let CompressionChoice::Level(level) | CompressionChoice::IfItHelps(level) = self.compression {
            let levels = zstd::compression_level_range();
            if !levels.contains(&level) {
                return Err(SettingsError::Level { level, min: *levels.start(), max: *levels.end() });
            }
        }
        if let Some((code, shape)) = self.coding {
            crate::erasure::Codec::new(code, shape)?;
            group_len(code, shape, stored_max)?;
        }
        Ok(())
    }

    /// Longest plain segment, in bytes.
    pub(super) fn plain_len_max(&self) -> usize {
        match self.chunking {
            Chunking::Fixed => self.segment_len as usize,
            Chunking::FastCdc { average } => average as usize * 4,
        }
    }

    /// Data segments of a group; without a code, of what is worked on together.
    pub(super) fn group_data(&self) -> usize {
        self.coding.map_or(16, |(_, shape)| shape.data)
    }

    pub(super) fn group_parity(&self) -> usize {
        self.coding.map_or(0, |(_, shape)| shape.parity)
    }

    /// Names all that decides which bytes are sealed under which number: two publications with one key must agree in it. It changes with the version of
    /// zstd, whose output may.
    pub fn fingerprint(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key("ioex pipeline settings v1");
        let mut number = |value: u64| {
            hasher.update(&value.to_le_bytes());
        };
        match self.chunking {
            Chunking::Fixed => [0, u64::from(self.segment_len)],
            Chunking::FastCdc { average } => [1, u64::from(average)],
        }
        .into_iter()
        .for_each(&mut number);
        match self.compression {
            CompressionChoice::Off => [0, 0, 0],
            CompressionChoice::Level(level) => [1, level as u64, zstd::zstd_safe::version_number().into()],
            CompressionChoice::IfItHelps(level) => {
                [2, level as u64, zstd::zstd_safe::version_number().into()]
            }
        }
        .into_iter()
        .for_each(&mut number);
        // The number of data segments is that of plain hashes, which are sealed, too; the code seals nothing.
        number(self.plain_hashes.into());
        Hash(*hasher.finalize().as_bytes())
    }
}
