import Base
import EventLog
import Features
import Foundation

/// Views that came or changed while the workspace's fold was running.
extension Node {
    /// Where the views' topics stand that no fold writes.
    var viewInputs: [TopicPartition] {
        let graph = FoldGraph(registry.all(StreamTopology.kind).map(\.definition))
        return Set(registry.beside.values.compactMap { $0.last?.definition.body["topic"]?.string }).sorted().filter {
            graph.writer(of: $0) == nil
        }.flatMap { topic in (0..<log.partitions(of: topic)).map { TopicPartition(topic, $0) } }
    }

    /// The versions that must run: the newest of each view and, until that has caught up, the one that is served.
    private func wanted() -> [(entry: DefinitionRegistry.Entry, view: String)] {
        let registry = registry
        return registry.beside.keys.sorted().flatMap { key -> [(entry: DefinitionRegistry.Entry, view: String)] in
            guard let versions = registry.beside[key], let newest = versions.last else { return [] }
            // What is as the workspace folds it is served from there.
            guard newest.definition.body != registry.folded[key]?.definition.body else { return [] }
            // The one that is served, unless the workspace's own fold had it in between.
            let before = versions.dropLast().reversed().prefix {
                $0.definition.body != registry.folded[key]?.definition.body
            }
            let served = before.first { $0.version == registry.live[key] }
            return ([newest] + (served.map { [$0] } ?? [])).map { ($0, newest.definition.name) }
        }
    }

    /// Begins to fold what came into force, and ends what something else took the place of. Callers hold `applying`, or are
    /// the start.
    func startViewFolds() throws {
        guard !configuration.isWorker else { return }
        let wanted = wanted()
        let (kept, others) = viewFolds.reduce(into: ([ViewFold](), [ViewFold]())) { parts, fold in
            let isWanted = wanted.contains { $0.view == fold.view.name && $0.entry.version == fold.version }
            if isWanted { parts.0.append(fold) } else { parts.1.append(fold) }
        }
        var folds = kept
        if !wanted.isEmpty {
            let directory = configuration.viewFoldsDirectory
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
            let workspace = try compile()
            try sweep(directory, Set(wanted.map { "\($0.view)@\($0.entry.version)" }))
            for (entry, name) in wanted
            where !kept.contains(where: { $0.view.name == name && $0.version == entry.version }) {
                let fold = ViewFold(
                    try FeatureView(entry.definition), version: entry.version, directory: directory,
                    checkpointSeconds: configuration.checkpointSeconds)
                fold.start(log: log, workspace, body: entry.definition.body)
                folds.append(fold)
            }
        }
        let all = folds
        viewBox.withLock { $0 = all }
        serving.withLock { $0.forget() }
        for fold in others { fold.discard() }
        if isStarted { try gateway.feed(also: viewInputs) }
    }

    /// Removes state of versions that something took the place of, which a crash may have left.
    private func sweep(_ directory: String, _ names: Set<String>) throws {
        let running = Set(viewFolds.map(\.name))
        for file in try FileManager.default.contentsOfDirectory(atPath: directory) {
            guard let end = file.range(of: ".sqlite") else { continue }
            let name = String(file[..<end.lowerBound])
            guard !names.contains(name), !running.contains(name) else { continue }
            try? FileManager.default.removeItem(atPath: directory + "/" + file)
        }
    }

    /// Whether a view's version is the one that is served.
    func isLive(_ fold: ViewFold) -> Bool { registry.live["\(FeatureView.kind)/\(fold.view.name)"] == fold.version }

    /// Whether a view is served and nothing of it is under way.
    func isAtRest(_ fold: ViewFold) -> Bool {
        let status = fold.host.status
        let waits = gateway.topic(fold.view.topic)?.lateness ?? 0 > 0
        return isLive(fold) && fold.isReady && status.drained && (status.waiting == 0 || waits)
    }

    /// The fold that serves a view; nil where the workspace's own does, or none yet.
    func liveFold(_ view: String) -> ViewFold? {
        viewFolds.first { $0.view.name == view && isLive($0) && $0.isReady }
    }

    /// How often is looked whether a view has caught up, in seconds.
    private static let look = 0.05

    /// Says of views that have caught up that they are live; what they take the place of ends then.
    func viewFoldLoop() {
        work("what brings views into service") {
            while !stopping {
                for fold in viewFolds where !stopping && !fold.isReady && fold.look() {
                    guard isNewest(fold), !isLive(fold) else {
                        // It was live in an earlier life, and is so again.
                        serving.withLock { $0.forget() }
                        continue
                    }
                    try applying.withLock { _ in try goLive(fold) }
                }
                _ = running.wait(seconds: Self.look) { $0.stopping ? true : nil }
            }
        }
    }

    private func isNewest(_ fold: ViewFold) -> Bool {
        registry.entries["\(FeatureView.kind)/\(fold.view.name)"]?.version == fold.version
    }

    private func goLive(_ fold: ViewFold) throws {
        // Another version may have come meanwhile.
        guard isNewest(fold) else { return }
        let news = DefinitionRegistry.live(fold.view.name, version: fold.version, at: Instant.wallClock())
        _ = try log.append(LogAppend(principal: "node", events: [(DefinitionRegistry.topic, 0, news)]))
        let fresh = try DefinitionRegistry(log: log)
        registryBox.withLock { $0 = fresh }
        try startViewFolds()
    }

    /// What is folded beside the workspace, for the status.
    var viewFoldStatus: JSON { .array(viewFolds.map { $0.status(isLive: isLive($0)) }) }
}
