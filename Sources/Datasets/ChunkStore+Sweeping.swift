import Base
import EventLog
import RecordFormat

/// Space of chunks that no dataset names any more. Packs are never changed: what is still wanted of one is written again behind
/// all others, and the pack goes once that is on disk. A crash in between leaves a chunk twice, which the next sweep mends.
extension ChunkStore {
    package struct Sweep: Sendable, Equatable {
        package var packs = 0
        /// Bytes of the packs that went, without what was written again of them.
        package var freed: Int64 = 0
        /// Packs that stay because a wanted chunk in them is damaged: what is left of it may be mended by hand.
        package var damaged = 0
    }

    /// What is kept or found while the body runs is not swept before it ends, whether a dataset names it by then or not yet.
    package func holding<R>(_ body: () throws -> R) rethrows -> R {
        state.withLock { $0.holders += 1 }
        defer {
            state.withLock { state in
                state.holders -= 1
                if state.holders == 0 { state.touched = [] }
            }
        }
        return try body()
    }

    /// Every chunk that a version is made of.
    package func references(of manifest: DatasetManifest) throws -> Set<Digest> {
        var digests = Set(try recipe(of: manifest).digests)
        digests.insert(manifest.recipe)
        if manifest.kind == .files {
            for recipe in try DatasetFiles.recipes(try table(of: manifest), self) {
                digests.insert(Digest.of(recipe.encoded))
                digests.formUnion(recipe.digests)
            }
        }
        return digests
    }

    /// Frees what is not wanted: every pack of which that is at least half.
    package func sweep(keeping wanted: Set<Digest>) throws(DatasetsError) -> Sweep {
        var sweep = Sweep()
        let live = bytes(of: wanted)
        do {
            for name in try volume.list() where name.hasSuffix(".pack") {
                guard let pack = Int(name.dropLast(5)) else { continue }
                let size = try volume.open(name, .read).size - Int64(ChunkStore.magic.count)
                // What was just begun is not begun anew.
                guard (live[pack] ?? 0) * 2 <= size, size > 0 || !isNewest(pack) else { continue }
                try seal(pack)
                guard try rewrite(pack, wanted) else {
                    sweep.damaged += 1
                    continue
                }
                // Without its index a pack is gone through; an index without its pack would be taken for that of the next
                // pack of this number.
                if try volume.list().contains(ChunkStore.indexName(pack)) {
                    try volume.remove(ChunkStore.indexName(pack))
                    try volume.syncDirectory("")
                }
                try volume.remove(name)
                try volume.syncDirectory("")
                sweep.packs += 1
                sweep.freed += size - (live[pack] ?? 0)
            }
        } catch {
            throw ChunkStore.failure("cannot be swept", volume, error)
        }
        return sweep
    }

    private func held(in pack: Int, _ wanted: Set<Digest>) -> [(digest: Digest, place: Place)] {
        state.withLock { $0.held(in: pack, wanted) }
    }

    /// Bytes that are wanted, by pack.
    private func bytes(of wanted: Set<Digest>) -> [Int: Int64] {
        state.withLock { state in
            var live: [Int: Int64] = [:]
            for (digest, place) in state.index where wanted.contains(digest) || state.touched.contains(digest) {
                live[place.pack, default: 0] += Int64(place.storedCount + ChunkStore.entryHeader)
            }
            return live
        }
    }

    private func isNewest(_ pack: Int) -> Bool { state.withLock { $0.pack == pack && $0.file != nil } }

    /// Nothing more is written to a pack.
    private func seal(_ pack: Int) throws {
        try state.withLock { state in
            if let failure = state.failure { throw failure }
            guard state.pack == pack, let file = state.file else { return }
            try file.sync()
            (state.pack, state.file, state.end) = (pack + 1, nil, 0)
        }
    }

    /// Writes what is wanted of a pack to the newest, and forgets the rest. Nothing is forgotten where a wanted chunk is damaged.
    private func rewrite(_ pack: Int, _ wanted: Set<Digest>) throws -> Bool {
        // What is known to be damaged, and stands nowhere else, may be mended from here.
        let isDamaged = state.withLock { state in
            state.damaged.contains {
                $0.value.pack == pack && wanted.contains($0.key) && state.index[$0.key] == nil
            }
        }
        if isDamaged { return false }
        while true {
            for (digest, place) in held(in: pack, wanted) {
                do {
                    try move(digest, try get(digest), from: place)
                } catch {
                    guard error.code == "rot" else { throw error }
                    return false
                }
            }
            try sync()
            // Something may have been found here meanwhile, and be wanted since.
            let isDone = state.withLock { state in
                guard state.held(in: pack, wanted).isEmpty else { return false }
                state.index = state.index.filter { $0.value.pack != pack }
                state.damaged = state.damaged.filter { $0.value.pack != pack }
                return true
            }
            if isDone { return true }
        }
    }
}

extension ChunkStore.State {
    /// What is wanted of a pack, in the order in which it stands there.
    fileprivate func held(in pack: Int, _ wanted: Set<Digest>) -> [(digest: Digest, place: ChunkStore.Place)] {
        index.filter { $0.value.pack == pack && (wanted.contains($0.key) || touched.contains($0.key)) }
            .sorted { $0.value.offset < $1.value.offset }.map { ($0.key, $0.value) }
    }
}
