import Base
import Foundation
import GRDB

/// Looks up what is on the disk only, beside whoever writes there. Used by one thread at a time.
final class StateReader {
    static let query = "SELECT data FROM chunks WHERE id = ?"

    enum Found {
        /// No run knows the key.
        case nothing
        /// The newest run that knows it says so: nil where it was removed.
        case entry(leaf: Digest, value: [UInt8]?)
    }

    let path: String
    private let queue: DatabaseQueue
    /// The first failure: from then on nothing that a fold computes is of any worth, and its runner stops.
    private(set) var failure: StreamsError?

    init(path: String) throws(StreamsError) {
        self.path = path
        do {
            var configuration = Configuration()
            configuration.readonly = true
            configuration.busyMode = .timeout(5)
            queue = try DatabaseQueue(path: path, configuration: configuration)
        } catch {
            throw StreamsError("state-open", StateDatabase.remedy(path), cause: error, fault: .world)
        }
    }

    static func damaged(_ run: StateRun) -> BaseError {
        BaseError("bad-run", "a chunk of run \(run.id) is missing or damaged", fault: .world)
    }

    /// Does something with all there is, as it is now, in one transaction; nil where that fails.
    func read<R>(_ body: (Database) throws -> R) -> R? {
        guard failure == nil else { return nil }
        do {
            return try all(body)
        } catch {
            fail(error)
            return nil
        }
    }

    /// The same, with the error that it may end with.
    func all<R>(_ body: (Database) throws -> R) throws -> R { try queue.read(body) }

    func fail(_ error: any Error) {
        guard failure == nil else { return }
        failure = StreamsError(
            "state-load", StateDatabase.remedy(path), cause: error, fault: .world)
    }

    /// - Parameter runs: the oldest first.
    func find(_ key: UnsafeRawBufferPointer, place: UInt64, hash: UInt64, in runs: [StateRun]) -> Found {
        for run in runs.reversed() where run.filter.mayHold(hash) {
            guard failure == nil else { return .nothing }
            do {
                // One question is its own snapshot, and a run never changes.
                let found = try queue.unsafeRead { database in try look(key, place, run, database) }
                if let found { return found }
            } catch {
                fail(error)
            }
        }
        return .nothing
    }

    private func look(
        _ key: UnsafeRawBufferPointer, _ place: UInt64, _ run: StateRun, _ database: Database
    ) throws -> Found? {
        let statement = try database.cachedStatement(sql: Self.query)
        var chunk = run.chunk(from: place)
        while chunk < run.starts.count, run.starts[chunk] <= place {
            let rows = try Row.fetchCursor(statement, arguments: [run.firstChunk + Int64(chunk)])
            guard let row = try rows.next() else { throw Self.damaged(run) }
            let found: Found? = try row.withUnsafeData(atIndex: 0) { data in
                try (data ?? Data()).withUnsafeBytes { raw in
                    guard StateChunk.isWhole(raw, id: run.firstChunk + Int64(chunk)) else { throw Self.damaged(run) }
                    return Self.search(raw, key, place)
                }
            }
            if let found { return found }
            chunk += 1
        }
        return nil
    }

    private static func search(_ raw: UnsafeRawBufferPointer, _ key: UnsafeRawBufferPointer, _ place: UInt64) -> Found?
    {
        var offset = StateChunk.headerBytes
        while let entry = StateEntry(raw, at: offset), entry.place <= place {
            if entry.place == place, StateKey.order(entry.key, key) == 0 {
                return .entry(leaf: entry.leaf, value: entry.value.map { [UInt8]($0) })
            }
            offset += entry.raw.count
        }
        return nil
    }
}
