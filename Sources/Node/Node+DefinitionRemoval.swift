import Base
import Catalog
import EventLog
import Features
import Foundation

/// Definitions that nobody needs any more. The log keeps what they were; what history is folded by cannot go.
extension Node {
    /// Kinds that may go.
    private static let removable = [FeatureView.kind, DerivedView.kind, FeatureService.kind, Entity.kind]

    /// Takes definitions out of force, together or not at all.
    /// - Parameter keys: `KIND/NAME` of each.
    package func remove(_ keys: [String]) throws -> JSON {
        try applying.withLock { _ in
            let current = registry
            var entries: [DefinitionRegistry.Entry] = []
            for key in Set(keys).sorted() {
                guard let entry = current.entries[key] else { throw unknown(key, current) }
                guard Self.removable.contains(entry.definition.kind), !entry.platform else {
                    throw CatalogError(
                        "in-force",
                        "\(key) stays: only \(Self.removable.joined(separator: ", ")) can be removed; the rest is what history is made of and read by"
                    )
                }
                entries.append(entry)
            }
            guard !entries.isEmpty else { throw CatalogError("no-definition", "name what is to be removed: KIND/NAME") }
            try refuseReaders(Set(entries.map(\.definition.key)))
            let begun = try isStarted || hasBegun(current)
            let events = entries.map { current.removal(of: $0, begun: begun, at: Instant.wallClock()) }
            _ = try log.append(
                LogAppend(principal: principal, events: events.map { (DefinitionRegistry.topic, 0, $0) }))
            let fresh = try DefinitionRegistry(log: log)
            registryBox.withLock { $0 = fresh }
            serving.withLock { $0.forget() }
            if isStarted { try startViewFolds() }
            return .object(["removed": .array(entries.map { .string($0.definition.key) })])
        }
    }

    private func unknown(_ key: String, _ current: DefinitionRegistry) -> CatalogError {
        let name = key.split(separator: "/", maxSplits: 1).last.map(String.init) ?? key
        let meant = current.entries.keys.filter { $0.hasSuffix("/" + name) }.sorted()
        return CatalogError(
            "unknown-definition",
            "there is no definition '\(key)'; name it as KIND/NAME"
                + (meant.isEmpty ? "" : ", such as \(meant.joined(separator: ", "))"))
    }

    /// What is read by something that stays cannot go.
    private func refuseReaders(_ going: Set<String>) throws {
        let workspace = try compile()
        let folded = Dictionary(workspace.foldedViews.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
        var uses: [(reader: String, of: String)] = []
        for question in workspace.questions {
            uses += question.references(in: folded).map { ("\(Question.kind)/\(question.name)", $0.view) }
        }
        for view in workspace.derived {
            uses += view.references.map { ("\(DerivedView.kind)/\(view.name)", $0.view) }
        }
        for service in workspace.services {
            uses += service.features.map { ("\(FeatureService.kind)/\(service.name)", $0.view) }
        }
        var readers: [String: Set<String>] = [:]
        for use in uses where !going.contains(use.reader) {
            for kind in [FeatureView.kind, DerivedView.kind] {
                readers["\(kind)/\(use.of)", default: []].insert(use.reader)
            }
        }
        for view in workspace.views where !going.contains("\(FeatureView.kind)/\(view.name)") {
            guard let entity = view.entity else { continue }
            readers["\(Entity.kind)/\(entity)", default: []].insert("\(FeatureView.kind)/\(view.name)")
        }
        for key in going.sorted() {
            guard let found = readers[key] else { continue }
            throw CatalogError(
                "definition-in-use",
                "\(key) is read by \(found.sorted().joined(separator: ", ")); remove or change that first, or with it")
        }
    }
}
