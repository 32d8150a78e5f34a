import Base
import Streams
import Testing

@Suite struct StateStoreTests {
    private struct Refusal: Error {}

    /// Random changes, checkpoints and digests against two plain dictionaries: what a checkpoint hands over makes the last
    /// one equal to the store, the digest depends on the content alone, and a store that is loaded goes on the same.
    @Test(arguments: 0..<20) func changesAreHandedOverOnce(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        var store = StateStore<StateBlob>(name: "s")
        var content: [String: [UInt8]] = [:]
        var saved: [String: [UInt8]] = [:]
        for step in 0..<400 {
            let key = "k\(Int.random(in: 0..<12, using: &random))"
            let byte = UInt8(truncatingIfNeeded: step)
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<2:
                store.set(key, StateBlob([byte]))
                content[key] = [byte]
            case 2..<5:
                store.modify(key, default: StateBlob([])) { $0.bytes.append(byte) }
                content[key, default: []].append(byte)
            case 5:
                // A change that fails half-way is a change.
                try? store.modify(key, default: StateBlob([])) { blob in
                    blob.bytes.append(byte)
                    throw Refusal()
                }
                content[key, default: []].append(byte)
            case 6: #expect(store.remove(key)?.bytes == content.removeValue(forKey: key))
            case 7: checkpoint(store, &saved, content)
            case 8:
                let fresh = StateStore<StateBlob>(name: "s")
                for (key, bytes) in content { fresh.set(key, StateBlob(bytes)) }
                #expect(store.digest() == fresh.digest(), "seed \(seed), step \(step)")
            default:
                checkpoint(store, &saved, content)
                store = StateStore(name: "s")
                for (key, bytes) in saved {
                    var writer = ByteWriter()
                    StateBlob(bytes).encode(into: &writer)
                    try writer.bytes.withUnsafeBytes { try store.load(key: key, value: $0) }
                }
                #expect(store.takeChanges().isEmpty)
            }
            #expect(store.count == content.count && store.values.count { _ in true } == content.count)
            #expect(store[key]?.bytes == content[key] && store.inspect(key) { $0.bytes } == content[key])
        }
        #expect(store.sortedKeys == content.keys.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) })
    }

    /// Texts that look alike are different keys, in the store, its digest and what it hands over.
    @Test func keysAreBytes() throws {
        let store = StateStore<StateBlob>(name: "s")
        let keys = ["é", "e\u{301}", "a\u{316}\u{301}", "a\u{301}\u{316}", "", "K", "\u{212A}"]
        for (number, key) in keys.enumerated() { store.set(key, StateBlob([UInt8(number)])) }
        #expect(store.count == keys.count)
        for (number, key) in keys.enumerated() { #expect(store[key]?.bytes == [UInt8(number)]) }
        #expect(store.takeChanges().count == keys.count)
        let before = store.digest()
        #expect(store.remove("e\u{301}") != nil && store["é"] != nil && store.digest() != before)
        #expect(store.takeChanges().map { Array($0.key.utf8) } == [Array("e\u{301}".utf8)])
    }

    private func apply(_ changes: [StateChange], to saved: inout [String: [UInt8]]) {
        // As StateBlob has it: its size, then its bytes.
        for change in changes { saved[change.key] = change.value.map { Array($0.dropFirst(4)) } }
    }

    /// A snapshot holds how things were when it began, whatever changes while it is taken piece by piece.
    @Test(arguments: 0..<40) func snapshotsHoldTheirMoment(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let store = StateStore<StateBlob>(name: "s")
        var content: [String: [UInt8]] = [:]
        var saved: [String: [UInt8]] = [:]
        func change() {
            let key = "k\(Int.random(in: 0..<12, using: &random))"
            let byte = UInt8.random(in: 0...255, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                store.set(key, StateBlob([byte]))
                content[key] = [byte]
            case 1, 2:
                store.modify(key, default: StateBlob([])) { $0.bytes.append(byte) }
                content[key, default: []].append(byte)
            default: #expect(store.remove(key)?.bytes == content.removeValue(forKey: key))
            }
        }
        for round in 0..<200 {
            for _ in 0..<Int.random(in: 0..<12, using: &random) { change() }
            let expected = content
            store.beginSnapshot()
            var changes: [StateChange] = []
            repeat {
                for _ in 0..<Int.random(in: 0..<4, using: &random) { change() }
            } while !store.takeSnapshot(limit: Int.random(in: 1...3, using: &random), into: &changes)
            #expect(Set(changes.map(\.key)).count == changes.count, "each key once")
            apply(changes, to: &saved)
            #expect(saved == expected, "seed \(seed), round \(round)")
        }
        apply(store.takeChanges(), to: &saved)
        #expect(saved == content)
    }

    private func checkpoint(
        _ store: StateStore<StateBlob>, _ saved: inout [String: [UInt8]], _ content: [String: [UInt8]]
    ) {
        let changes = store.takeChanges()
        #expect(changes.map(\.key) == Set(changes.map(\.key)).sorted())
        apply(changes, to: &saved)
        #expect(saved == content && store.takeChanges().isEmpty)
    }
}
