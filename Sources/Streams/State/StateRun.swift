import Base
import Foundation
import GRDB

/// A sorted run: keys with their values as one or more checkpoints left them, in the order of places, in chunks of one page
/// each. It never changes; a newer run hides what an older one says of the same key.
package struct StateRun: Sendable {
    let id: Int64
    let entries: Int
    let bytes: Int
    let firstChunk: Int64
    /// Place of the first entry of each chunk.
    let starts: [UInt64]
    let filter: StateFilter

    /// The first chunk that may hold an entry at a place or behind it.
    func chunk(from place: UInt64) -> Int {
        max(0, starts.sortedIndex { $0 < place } - 1)
    }
}

/// A chunk's bytes: a checksum (u64, of its number and what follows) and then entries.
package enum StateChunk {
    static let headerBytes = 8
    /// With its row's own bytes it fills a page of the database.
    static let limit = 16_200

    package static func seal(_ bytes: inout [UInt8], id: Int64) {
        let sum = bytes.withUnsafeBytes { Self.sum(UnsafeRawBufferPointer(rebasing: $0[headerBytes...]), id) }
        withUnsafeBytes(of: sum.littleEndian) { raw in
            for (index, byte) in raw.enumerated() { bytes[index] = byte }
        }
    }

    static func isWhole(_ raw: UnsafeRawBufferPointer, id: Int64) -> Bool {
        guard raw.count > headerBytes else { return false }
        return UInt64(littleEndian: raw.loadUnaligned(as: UInt64.self))
            == sum(UnsafeRawBufferPointer(rebasing: raw[headerBytes...]), id)
    }

    private static func sum(_ raw: UnsafeRawBufferPointer, _ id: Int64) -> UInt64 {
        stableHash(raw, seed: UInt64(bitPattern: id))
    }
}

/// Writes a run into the tables of a state, in the transaction that is open.
struct StateRunWriter {
    private let database: Database
    private let insert: Statement
    private let store: String
    private let id: Int64
    private let firstChunk: Int64
    private var chunk: [UInt8] = Array(repeating: 0, count: StateChunk.headerBytes)
    private var starts: [UInt64] = []
    private var hashes: [UInt64] = []
    private var bytes = 0

    init(_ database: Database, store: String) throws {
        self.database = database
        self.store = store
        insert = try database.cachedStatement(sql: "INSERT INTO chunks(id, data) VALUES(?, ?)")
        // Never those of one that is gone: somebody may still look for it.
        func next(_ table: String) throws -> Int64 {
            let last = try Int64.fetchOne(
                database, sql: "SELECT seq FROM sqlite_sequence WHERE name = ?", arguments: [table])
            return (last ?? 0) + 1
        }
        id = try next("runs")
        firstChunk = try next("chunks")
    }

    mutating func append(_ entry: StateEntry) throws {
        if chunk.count > StateChunk.headerBytes, chunk.count + entry.raw.count > StateChunk.limit { try flush() }
        if chunk.count == StateChunk.headerBytes { starts.append(entry.place) }
        chunk.append(contentsOf: entry.raw)
        hashes.append(entry.hash)
        bytes += entry.raw.count
    }

    private mutating func flush() throws {
        let number = firstChunk + Int64(starts.count) - 1
        StateChunk.seal(&chunk, id: number)
        try insert.execute(arguments: [number, Data(chunk)])
        chunk.removeSubrange(StateChunk.headerBytes...)
    }

    /// The run; nil where nothing was taken.
    mutating func finish() throws -> StateRun? {
        guard !starts.isEmpty else { return nil }
        try flush()
        let run = StateRun(
            id: id, entries: hashes.count, bytes: bytes, firstChunk: firstChunk, starts: starts,
            filter: StateFilter(hashes))
        var index = ByteWriter(capacity: starts.count * 8)
        for place in starts { index.append(little: place) }
        try database.execute(
            sql:
                "INSERT INTO runs(id, store, entries, bytes, firstChunk, starts, filter, sum, obsolete) VALUES(?, ?, ?, ?, ?, ?, ?, ?, 0)",
            arguments: [
                id, store, run.entries, run.bytes, firstChunk, Data(index.bytes), Data(run.filter.bytes),
                run.sum(store),
            ])
        return run
    }
}

extension StateRun {
    /// Of all that says where what is: with a bit of it wrong, a key that is there would not be found.
    fileprivate func sum(_ store: String) -> Int64 {
        var writer = ByteWriter(capacity: starts.count * 8)
        writer.append(sized: store)
        for number in [id, Int64(entries), Int64(bytes), firstChunk] { writer.append(little: number) }
        for place in starts { writer.append(little: place) }
        writer.append(filter.bytes)
        return writer.bytes.withUnsafeBytes { Int64(bitPattern: stableHash($0)) }
    }

    /// Runs by store, the oldest first.
    static func load(_ database: Database) throws -> [String: [StateRun]] {
        var lists: [String: [StateRun]] = [:]
        let rows = try Row.fetchCursor(
            database,
            sql:
                "SELECT id, store, entries, bytes, firstChunk, starts, filter, sum FROM runs WHERE obsolete = 0 ORDER BY id"
        )
        while let row = try rows.next() {
            let starts: Data = row[5]
            let filter: Data = row[6]
            guard starts.count % 8 == 0, let filter = filter.withUnsafeBytes({ StateFilter($0) }) else {
                throw BaseError("bad-run", "the index of a run of '\(row[1] as String)' is damaged", fault: .world)
            }
            let run = StateRun(
                id: row[0], entries: row[2], bytes: row[3], firstChunk: row[4],
                starts: starts.withUnsafeBytes { raw in
                    (0..<raw.count / 8).map {
                        UInt64(littleEndian: raw.loadUnaligned(fromByteOffset: $0 * 8, as: UInt64.self))
                    }
                }, filter: filter)
            guard run.sum(row[1]) == row[7] as Int64 else {
                throw BaseError("bad-run", "the index of a run of '\(row[1] as String)' is damaged", fault: .world)
            }
            lists[row[1], default: []].append(run)
        }
        return lists
    }
}
