import Base
import Catalog
import EventLog
import Features
import Foundation
import Streams

/// Definitions that are in force, and how others come into force.
extension Node {
    /// Compiles what the log says is in force.
    package func compile() throws -> CompiledWorkspace { try compile(registry) }

    func compile(_ registry: DefinitionRegistry) throws -> CompiledWorkspace {
        let entries = registry.entries.values.sorted { $0.definition.key < $1.definition.key }
        let platform = Set(
            entries.filter { $0.platform && $0.definition.kind == TopicDefinition.kind }.map(\.definition.name))
        var workspace = try CompiledWorkspace(
            entries.map(\.definition).filter { $0.kind != StreamTopology.kind }, platformTopics: platform,
            folded: registry.folded(with: [], begun: true))
        workspace.folds = FoldGraph(entries.map(\.definition))
        for entry in entries where entry.definition.kind == TopicDefinition.kind {
            workspace.reads[entry.definition.name] = entry.reads
        }
        return workspace
    }

    /// Applies a workspace: checked as a whole first, then logged; what is unchanged logs nothing.
    @discardableResult
    package func apply(directory: String) throws -> [(key: String, change: DefinitionRegistry.Change)] {
        try apply(try Workspace.read(directory: directory))
    }

    @discardableResult
    package func apply(_ definitions: [Definition]) throws -> [(key: String, change: DefinitionRegistry.Change)] {
        // One at a time: what is decided against the registry must still hold when it is logged.
        try applying.withLock { _ in try applyAlone(definitions) }
    }

    /// Checks definitions against all that are in force.
    private func check(_ definitions: [Definition], _ current: DefinitionRegistry, begun: Bool) throws {
        var merged = current.entries.mapValues(\.definition)
        for definition in definitions {
            if current.entries[definition.key]?.platform == true {
                throw Self.reserved(definition)
            }
            merged[definition.key] = definition
        }
        let platform = Set(current.entries.values.filter(\.platform).map(\.definition.name))
        var workspace = try CompiledWorkspace(
            merged.values.filter { $0.kind != StreamTopology.kind || $0.place != "" }.sorted { $0.key < $1.key },
            platformTopics: platform, folded: current.folded(with: definitions, begun: begun))
        let beside = Set(current.beside.keys).union(
            definitions.filter { begun && $0.kind == FeatureView.kind && current.change($0) != .unchanged }.map(\.key))
        let graph = FoldGraph(current.all(StreamTopology.kind).map(\.definition))
        for definition in definitions where beside.contains(definition.key) {
            guard let topic = definition.body["topic"]?.string, let writer = graph.writer(of: topic),
                log.partitions(of: topic) > 1
            else { continue }
            throw CatalogError(
                "derived-topic",
                "\(definition.place): \(definition.key) reads '\(topic)', which '\(writer.name)' writes in several partitions; a view that comes while history runs reads what is published, or what has one partition"
            )
        }
        guard beside.count <= ViewFold.limit else {
            throw CatalogError(
                "too-many-views",
                "\(ViewFold.limit) views may come or change while a history runs; a new data directory takes any number"
            )
        }
        workspace.folds = FoldGraph(current.all(StreamTopology.kind).map(\.definition))
        try workspace.folds.with(try WorkspaceTopology(workspace)).refuseCycles()
    }

    /// Why a definition cannot come into force: a replay folds from the beginning, so whatever a stage reads must have been in
    /// force there. New topics fold nothing.
    private func refusal(_ definition: Definition, _ current: DefinitionRegistry, begun: Bool) -> CatalogError? {
        let change = current.change(definition)
        guard begun, !current.onlyContinues(definition), !current.onlyDescribes(definition),
            !DefinitionRegistry.namingKinds.contains(definition.kind),
            definition.kind != FeatureView.kind,
            change == .change || (change == .create && definition.kind != TopicDefinition.kind)
        else { return nil }
        let known = current.entries[definition.key].map { "is in force since \($0.position)" } ?? "is new"
        return CatalogError(
            "in-force",
            "\(definition.place): \(definition.key) \(known), and the topology has begun; a running history takes new topics, entities, feature views and services, changes of those three last, and upcasters behind those that a topic has; use a new data directory for anything else"
        )
    }

    /// The same where there is no log yet: everything is new.
    package static func plan(_ definitions: JSON, platformTopics: String) throws -> JSON {
        let platform = try Workspace.read(directory: platformTopics)
        let named = try Self.definitions(in: definitions)
        let reserved = Set(platform.map(\.key))
        if let taken = named.first(where: { reserved.contains($0.key) }) { throw Self.reserved(taken) }
        _ = try WorkspaceTopology(
            try CompiledWorkspace(platform + named, platformTopics: Set(platform.map(\.name))))
        let items = named.map { definition in
            JSON.object([
                "definition": .string(definition.key), "change": .string(DefinitionRegistry.Change.create.rawValue),
                "effect": .string("in force from the first start"), "from": .null, "to": .int(1), "reason": .null,
                "differences": .array([]),
            ])
        }
        return .object(["changes": .array(items), "left": .array([])])
    }

    private static func reserved(_ definition: Definition) -> CatalogError {
        CatalogError(
            "reserved-name",
            "\(definition.place): \(definition.key) belongs to the platform; choose another name")
    }

    /// What applying definitions would do: nothing is changed.
    package func plan(_ definitions: [Definition]) throws -> JSON {
        let current = registry
        let isStarted = running.withLock { $0.started }
        let begun = try isStarted || hasBegun(current)
        try check(definitions, current, begun: begun)
        let items = definitions.map { definition in
            let change = current.change(definition)
            let refused = refusal(definition, current, begun: begun)
            let isAtOnce =
                (definition.kind == TopicDefinition.kind && change == .create)
                || DefinitionRegistry.namingKinds.contains(definition.kind)
            let isFilled = begun && definition.kind == FeatureView.kind
            let effect =
                change == .unchanged
                ? "none"
                : refused != nil
                    ? "refused"
                    : isFilled
                        ? "backfilled from the log, then live"
                        : isAtOnce || !isStarted ? "in force at once" : "in force from the next start"
            let version = current.entries[definition.key]?.version
            return JSON.object([
                "definition": .string(definition.key), "change": .string(change.rawValue), "effect": .string(effect),
                "from": version.map { .int($0) } ?? .null,
                "to": .int(
                    change == .unchanged || refused != nil ? version ?? 0 : current.nextVersion(of: definition.key)),
                "reason": refused.map { .string($0.message) } ?? .null,
                "differences": .array(differences(definition, current).map { .string($0) }),
            ])
        }
        let named = Set(definitions.map(\.key))
        let left = current.entries.values.filter {
            !$0.platform && $0.definition.kind != StreamTopology.kind && !named.contains($0.definition.key)
        }
        return .object([
            "changes": .array(items), "left": .array(left.map(\.definition.key).sorted().map { .string($0) }),
        ])
    }

    /// Members that differ from what is in force, lists of named things by name.
    private func differences(_ definition: Definition, _ current: DefinitionRegistry) -> [String] {
        guard let known = current.entries[definition.key]?.definition.body.object,
            let body = definition.body.object
        else { return [] }
        return Set(known.keys).union(body.keys).sorted().flatMap { key -> [String] in
            let (old, new) = (known[key], body[key])
            guard old != new else { return [] }
            guard let before = old?.array, let after = new?.array else {
                return [old == nil ? "+ \(key)" : new == nil ? "- \(key)" : "~ \(key)"]
            }
            func name(_ item: JSON) -> String { item["name"]?.string ?? item.string ?? item.text }
            return after.filter { item in !before.contains { name($0) == name(item) } }.map { "+ \(key) \(name($0))" }
                + before.filter { item in !after.contains { name($0) == name(item) } }.map { "- \(key) \(name($0))" }
                + after.filter { item in before.contains { name($0) == name(item) && $0 != item } }.map {
                    "~ \(key) \(name($0))"
                }
        }
    }

    private func applyAlone(_ definitions: [Definition]) throws -> [(key: String, change: DefinitionRegistry.Change)] {
        let current = registry
        let changes = definitions.map { ($0.key, current.change($0)) }
        let begun = try running.withLock { $0.started } || hasBegun(current)
        try check(definitions, current, begun: begun)
        for definition in definitions {
            if let refusal = refusal(definition, current, begun: begun) { throw refusal }
        }
        if running.withLock({ $0.started }), changes.contains(where: { $0.1 != .unchanged }) {
            let folded = zip(definitions, changes).filter {
                $1.1 != .unchanged && !DefinitionRegistry.namingKinds.contains($0.kind) && $0.kind != FeatureView.kind
                    && !($0.kind == TopicDefinition.kind && $1.1 == .create)
            }
            try append(definitions, platform: false, begun: begun)
            try declareTopics()
            try startViewFolds()
            if !folded.isEmpty {
                let keys = folded.map(\.1.0).joined(separator: ", ")
                running.withLock { $0.notices.append("applied \(keys): in force from the next start") }
            }
            return changes
        }
        try append(definitions, platform: false, begun: begun)
        try declareTopics()
        return changes
    }

    /// Whether any topic of the workspace holds an event; progress alone begins nothing.
    func hasBegun(_ registry: DefinitionRegistry) throws -> Bool {
        for entry in registry.all(TopicDefinition.kind) where !entry.platform {
            let topic = try TopicDefinition(entry.definition)
            for partition in 0..<topic.partitions {
                let place = TopicPartition(topic.name, partition)
                guard log.partitions(of: topic.name) > partition else { continue }
                // What was trimmed away was there once.
                if try log.offsets(place).lowerBound > 0 { return true }
                var found = false
                try log.forEachEvent(place, passesDoubt: true) { event in
                    found = !event.isProgress
                    return !found
                }
                if found { return true }
            }
        }
        return false
    }
}
