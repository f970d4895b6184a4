//! Writes first inputs for the fuzz targets into a folder: the sample conversations of `pg-wire`'s tests, values that
//! a server wrote, and statements. `cargo run --example seeds FOLDER`

#[path = "../../../crates/pg-wire/tests/conversation/mod.rs"]
mod conversation;

use std::{fs, io, path::Path};

use pg_wire::Direction;

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).expect("usage: seeds FOLDER");
    let folder = Path::new(&folder);
    for (number, (_, conversation)) in conversation::samples::all().into_iter().enumerate() {
        let steps = |step: fn(Direction) -> u8| -> Vec<u8> {
            let turns = conversation.turns.iter();
            let pieces =
                turns.flat_map(|(direction, bytes)| bytes.chunks(255).map(|piece| (*direction, piece)));
            let steps =
                pieces.flat_map(|(direction, piece)| [&[step(direction), piece.len() as u8], piece].concat());
            [0].into_iter().chain(steps).collect()
        };
        // Pieces as they are.
        write(
            folder,
            "session",
            number,
            &steps(|direction| 5 << 1 | u8::from(direction == Direction::Backend)),
        )?;
        write(
            folder,
            "startup",
            number,
            &steps(|direction| 7 << 1 | u8::from(direction == Direction::Backend)),
        )?;
        for (target, own) in [("frontend", Direction::Frontend), ("backend", Direction::Backend)] {
            write(folder, target, number, &one_side(own, &conversation.turns))?;
        }
    }
    for (number, line) in include_str!("../../../crates/pg-wire/tests/values.tsv")
        .lines()
        .enumerate()
    {
        let columns: Vec<&str> = line.split('\t').collect();
        let oid: u32 = columns[0].parse().expect("an oid");
        let [low, high, ..] = oid.to_le_bytes();
        let bytes =
            (0..columns[1].len() / 2).map(|at| u8::from_str_radix(&columns[1][2 * at..2 * at + 2], 16));
        let value: Vec<u8> = bytes.collect::<Result<_, _>>().expect("hexadecimal");
        write(
            folder,
            "values",
            number,
            &[&[1, low, high], value.as_slice()].concat(),
        )?;
    }
    let statements = STATEMENTS
        .split(";;")
        .map(str::trim)
        .filter(|statement| !statement.is_empty());
    for (number, statement) in statements.enumerate() {
        write(folder, "sql", number, statement.as_bytes())?;
    }
    for (number, seed) in PACKETS.iter().enumerate() {
        write(folder, "tcp", number, seed)?;
    }
    Ok(())
}

/// The messages of one side as steps with their type; the other side's as pieces of usual messages, in order.
fn one_side(own: Direction, turns: &[conversation::Turn]) -> Vec<u8> {
    let (kinds, usual): (&[u8], &[u8]) = match own {
        Direction::Frontend => (b"QPBDECSHFdcfSXES", b"123ntTDCCIsEZZZGHWdcASVN"),
        Direction::Backend => (b"Z123CDETtnsGHdZR", b"QQPPBBDDEESCHFdcfX"),
    };
    let mut steps = vec![0];
    for (direction, bytes) in turns {
        let mut answers = Vec::new();
        let mut rest = bytes.as_slice();
        // Startup packets begin with a zero; they are no part of these targets.
        while let [kind, a, b, c, d, tail @ ..] = rest
            && *kind != 0
        {
            let length = (u32::from_be_bytes([*a, *b, *c, *d]) as usize)
                .saturating_sub(4)
                .min(tail.len());
            let (body, tail) = tail.split_at(length);
            rest = tail;
            if *direction != own {
                answers.extend(usual.iter().position(|other| other == kind).map(|at| at as u8));
            } else if let (Some(choice), Ok(length)) =
                (kinds.iter().position(|k| k == kind), u8::try_from(length))
            {
                steps.extend([choice as u8, length]);
                steps.extend(body);
            }
        }
        if !answers.is_empty() {
            steps.extend([13 << 4, answers.len() as u8]);
            steps.extend(answers);
        }
    }
    steps
}

fn write(folder: &Path, target: &str, number: usize, data: &[u8]) -> io::Result<()> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(format!("seed-{number:03}")), data)
}

/// Connections that begin; data of both sides; what is sent again, ahead of its time, cut, and an end.
const PACKETS: [&[u8]; 3] = [
    &[
        0xf0, 0, 100, 0, 0, 0, 0, 0, 0, 20, 1, 0, 0, 0, 30, 0, 0, 0, 0x40, 9, 0, 0, 9, 0, 9,
    ],
    &[
        0xf0, 1, 1, 0, 0, 0, 1, 0, 0, 200, 0, 1, 50, 0, 100, 0, 1, 0, 0xff, 5, 0x0e, 1, 0, 9, 5, 0x70, 1, 0,
        0, 0, 0x71, 1, 0, 0, 0,
    ],
    &[
        0xf0, 2, 255, 0, 0, 0, 2, 0, 0x80, 255, 0, 2, 255, 0, 255, 0xf0, 2, 3, 0, 0, 1, 2, 0, 0, 7, 0x80, 2,
        0, 0, 0,
    ],
];

const STATEMENTS: &str = include_str!("statements.sql");
