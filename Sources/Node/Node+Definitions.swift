import Base
import Catalog
import EventLog
import Foundation
import Streams

/// Definitions that are in force, and how others come into force.
extension Node {
    /// Compiles what the log says is in force.
    package func compile() throws -> CompiledWorkspace {
        let entries = registry.entries.values.sorted { $0.definition.key < $1.definition.key }
        let platform = Set(
            entries.filter { $0.platform && $0.definition.kind == TopicDefinition.kind }.map(\.definition.name))
        var workspace = try CompiledWorkspace(
            entries.map(\.definition).filter { $0.kind != StreamTopology.kind }, platformTopics: platform)
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

    private func applyAlone(_ definitions: [Definition]) throws -> [(key: String, change: DefinitionRegistry.Change)] {
        let current = registry
        var merged = current.entries.mapValues(\.definition)
        for definition in definitions {
            if current.entries[definition.key]?.platform == true {
                throw CatalogError(
                    "reserved-name",
                    "\(definition.place): \(definition.key) belongs to the platform; choose another name")
            }
            merged[definition.key] = definition
        }
        let platform = Set(current.entries.values.filter(\.platform).map(\.definition.name))
        var workspace = try CompiledWorkspace(
            merged.values.filter { $0.kind != StreamTopology.kind || $0.place != "" }.sorted { $0.key < $1.key },
            platformTopics: platform)
        workspace.folds = FoldGraph(current.all(StreamTopology.kind).map(\.definition))
        try workspace.folds.with(try WorkspaceTopology(workspace)).refuseCycles()
        let changes = definitions.map { ($0.key, current.change($0)) }
        // A replay folds from the beginning, so whatever a stage reads must have been in force there. New topics fold nothing.
        let begun = try hasBegun(current)
        for (definition, change) in zip(definitions, changes.map(\.1))
        where begun && !current.onlyContinues(definition) && !DefinitionRegistry.namingKinds.contains(definition.kind)
            && (change == .change || (change == .create && definition.kind != TopicDefinition.kind))
        {
            let known = current.entries[definition.key].map { "is in force since \($0.position)" } ?? "is new"
            throw CatalogError(
                "in-force",
                "\(definition.place): \(definition.key) \(known), and the topology has begun; a running history takes new topics, and upcasters behind those that a topic has; use a new data directory for anything else"
            )
        }
        if running.withLock({ $0.started }), changes.contains(where: { $0.1 != .unchanged }) {
            let folded = zip(definitions, changes).filter {
                $1.1 != .unchanged && !DefinitionRegistry.namingKinds.contains($0.kind)
            }
            try append(definitions, platform: false, begun: begun || running.withLock { $0.started })
            try declareTopics()
            if !folded.isEmpty {
                let keys = folded.map(\.1.0).joined(separator: ", ")
                running.withLock { $0.notices.append("applied \(keys): in force from the next start") }
            }
            return changes
        }
        try append(definitions, platform: false, begun: begun || running.withLock { $0.started })
        try declareTopics()
        return changes
    }

    /// Whether any topic of the workspace holds an event; progress alone begins nothing.
    private func hasBegun(_ registry: DefinitionRegistry) throws -> Bool {
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
