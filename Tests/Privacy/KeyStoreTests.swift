import Base
import EventLog
import Foundation
import Privacy
import Simulation
import Testing

@Suite struct KeyStoreTests {
    private static let moment = Instant(milliseconds: 1_000_000)

    /// What a model of the store knows after each acknowledged call.
    private struct Model {
        var live: [String: KeyID] = [:]
        var secrets: [KeyID: [UInt8]] = [:]
        var erased: Set<KeyID> = []
        /// Its erasure was under way when the power went.
        var open: KeyID?
    }

    private static func secret(_ store: KeyStore, _ id: KeyID) throws -> [UInt8]? {
        guard case .live(let key) = try store.state(of: id) else { return nil }
        return key.withUnsafeBytes { Array($0) }
    }

    private static func check(_ store: KeyStore, _ volume: SimulatedVolume, _ model: inout Model, _ seed: UInt64) throws
    {
        if let id = model.open {
            // It has happened or not; the node would do it again.
            try store.destroy(id, at: moment)
            model.erased.insert(id)
            model.live = model.live.filter { $0.value != id }
            model.open = nil
        }
        for (subject, id) in model.live.sorted(by: { $0.key < $1.key }) {
            let (found, key) = (try store.find(subject), try secret(store, id))
            #expect(found == id && key == model.secrets[id], "seed \(seed): \(subject)")
        }
        let file = try volume.open(KeyStore.fileName, .read)
        let bytes = try file.read(at: 0, count: Int(file.size))
        for id in model.erased {
            guard case .erased = try store.state(of: id) else {
                Issue.record("seed \(seed): \(id) came back")
                continue
            }
            let gone = model.secrets[id] ?? []
            #expect(bytes.firstRange(of: gone) == nil, "seed \(seed): the key is still on the disk")
        }
    }

    /// Lives of a store on a disk that loses power: no key that was given out is lost, none that was destroyed comes back,
    /// and its bytes are nowhere in the file.
    @Test(arguments: 0..<4) func keysAreKeptAndErasedAcrossPowerFailures(part: UInt64) throws {
        var crashes = 0
        for seed in part * 100..<(part + 1) * 100 {
            var random = SeededRandom(seed: seed)
            let volume = SimulatedVolume(seed: seed &+ 99)
            var model = Model()
            func open() throws -> KeyStore {
                while true {
                    do { return try KeyStore(volume) } catch  where volume.isDown { volume.crash() }
                }
            }
            var store = try open()
            for _ in 0..<60 {
                do {
                    switch Int.random(in: 0..<10, using: &random) {
                    case 0..<5:
                        let names = (0..<Int.random(in: 1...6, using: &random)).map { _ in
                            "s\(Int.random(in: 0..<30, using: &random))"
                        }
                        let keys = try store.keys(of: names, at: Self.moment)
                        for (name, key) in zip(names, keys) {
                            #expect(model.live[name] ?? key.id == key.id && !model.erased.contains(key.id))
                            model.live[name] = key.id
                            model.secrets[key.id] = key.secret.withUnsafeBytes { Array($0) }
                        }
                    case 5..<8:
                        let names = model.live.keys.sorted()
                        guard let name = names.randomElement(using: &random), let id = model.live[name] else {
                            continue
                        }
                        model.open = id
                        try store.destroy(id, at: Self.moment)
                        try Self.check(store, volume, &model, seed)
                    case 8: volume.crash(within: Int.random(in: 1...6, using: &random))
                    default:
                        crashes += 1
                        volume.crash()
                        store = try open()
                        try Self.check(store, volume, &model, seed)
                    }
                } catch {
                    guard volume.isDown || (error as? PrivacyError)?.code == "key-store-failed" else { throw error }
                    crashes += 1
                    volume.crash()
                    store = try open()
                    try Self.check(store, volume, &model, seed)
                }
            }
            #expect(store.counts.damaged == 0)
        }
        #expect(crashes > 200)
    }

    /// Erasures are repeated at every start: they take nothing from people who came back, whatever the clock said then. In a
    /// copy of the store that never had the erased key, the person's older key goes.
    @Test(arguments: [-1000, -1, 0, 1, 1000]) func repeatedErasuresTakeNobodyBack(milliseconds: Int64) throws {
        let (scratch, other) = (try ScratchDirectory(), try ScratchDirectory())
        let path = "/" + KeyStore.fileName
        let first: KeyID
        do {
            let store = try KeyStore(DiskVolume(scratch.path))
            first = try store.keys(of: ["alice"], at: Self.moment)[0].id
            try FileManager.default.copyItem(atPath: scratch.path + path, toPath: other.path + path)
            let tag = store.fingerprint([UInt8]("alice".utf8))
            try store.destroy(first, tag: tag, at: Self.moment + 5)
            let second = try store.keys(of: ["alice"], at: Self.moment + 5 + milliseconds)[0].id
            try store.destroy(first, tag: tag, at: Self.moment + 5)
            #expect(try store.find("alice") == second && store.counts == (1, 1, 0))
            try store.destroy(second, tag: tag, at: Self.moment + 9)
            #expect(store.counts == (0, 2, 0))
            let copy = try KeyStore(DiskVolume(other.path))
            try copy.destroy(second, tag: tag, at: Self.moment + 9)
            #expect(try copy.find("alice") == nil && copy.counts == (0, 2, 0))
        }
    }

    /// Damage takes the keys it hits and no other; a header without sense is refused.
    @Test func damageIsSaid() throws {
        let scratch = try ScratchDirectory()
        let path = scratch.path + "/subject.keys"
        let ids = try KeyStore(DiskVolume(scratch.path)).keys(of: ["a", "b", "c"], at: Self.moment).map(\.id)
        func change(_ offset: Int) throws {
            var bytes = try [UInt8](Data(contentsOf: URL(filePath: path)))
            bytes[offset] ^= 1
            try Data(bytes).write(to: URL(filePath: path))
        }
        try change(512 + 128 + 60)
        do {
            let store = try KeyStore(DiskVolume(scratch.path))
            #expect(store.counts == (2, 0, 1))
            #expect(try ["a", "b", "c"].map { try store.find($0) } == [ids[0], nil, ids[2]])
            guard case .unknown = try store.state(of: ids[1]) else { throw PrivacyError("test", "b is known") }
            // Its name still says that it is gone once the log says so.
            try store.destroy(ids[1], at: Self.moment)
            guard case .erased = try store.state(of: ids[1]) else { throw PrivacyError("test", "b is not erased") }
            #expect(errorCode { _ = try KeyStore(DiskVolume(scratch.path)) } == "locked")
        }
        // The newest slot gone bad is not taken for one that was never given out.
        try change(512 + 3 * 128 + 20)
        do {
            let store = try KeyStore(DiskVolume(scratch.path))
            #expect(store.counts == (2, 0, 2) && store.slots == 4)
            let before = try [UInt8](Data(contentsOf: URL(filePath: path)))
            _ = try store.keys(of: ["d"], at: Self.moment)
            let after = try [UInt8](Data(contentsOf: URL(filePath: path)))
            #expect(after.prefix(512 + 4 * 128) == before.prefix(512 + 4 * 128) && store.slots == 5)
        }
        try change(30)
        #expect(errorCode { _ = try KeyStore(DiskVolume(scratch.path)) } == "rot")
    }
}
