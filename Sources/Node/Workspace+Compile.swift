import Base
import Catalog
import Datasets
import Features
import Models
import Supervision

extension CompiledWorkspace {
    static let kinds = [
        TopicDefinition.kind, Entity.kind, FeatureView.kind, DerivedView.kind, FeatureService.kind, Question.kind,
        ModelDefinition.kind,
        MonitorDefinition.kind,
        PolicyDefinition.kind,
    ]

    /// Checks every definition against the others and compiles it. Mistakes are one error that names their places.
    /// Models, monitors and policies are judged when everything that they stand on is right.
    /// - Parameter folded: the views that the workspace's own fold folds; nil where those are all that there are.
    package init(_ definitions: [Definition], platformTopics: Set<String>, folded: [Definition]? = nil) throws {
        try Self.each(definitions, Self.refuseUnknown)
        var judged = JudgedDefinitions(definitions)
        var topics: [(definition: TopicDefinition, platform: Bool)] = []
        try judged.each(TopicDefinition.kind) { definition, _ in
            if definition.name.hasPrefix("headrace."), !platformTopics.contains(definition.name) {
                throw try DefinitionReader(definition).failure(
                    "names that begin with 'headrace.' are the platform's", at: "name", code: "reserved-name")
            }
            topics.append((try TopicDefinition(definition), platformTopics.contains(definition.name)))
        }
        func check(
            _ name: String, _ expressions: [CELProgram], _ definition: Definition, _ judged: JudgedDefinitions
        ) throws {
            guard let topic = topics.first(where: { $0.definition.name == name })?.definition else {
                if judged.isMistaken(TopicDefinition.kind, name) { return }
                throw CatalogError(
                    "unknown-topic",
                    "\(definition.place): \(definition.key) reads the topic '\(name)', which is not declared")
            }
            try Self.refusePersonal(topic, expressions, definition)
        }
        var entities: [Entity] = []
        try judged.each(Entity.kind) { definition, _ in entities.append(try Entity(definition)) }
        var views: [FeatureView] = []
        try judged.each(FeatureView.kind) { definition, judged in
            let view = try FeatureView(definition)
            try check(view.topic, view.expressions, definition, judged)
            let entity = view.entity ?? ""
            guard
                entity.isEmpty || entities.contains(where: { $0.name == entity })
                    || judged.isMistaken(Entity.kind, entity)
            else {
                throw try DefinitionReader(definition).failure(
                    "there is no entity '\(entity)'; declare it as 'kind: Entity'", at: "entity", code: "unknown-entity"
                )
            }
            views.append(view)
        }
        let byName = Dictionary(uniqueKeysWithValues: views.map { ($0.name, $0) })
        let foldedViews = try folded.map { try Self.views($0, definitions, byName) } ?? views
        let foldedByName = Dictionary(uniqueKeysWithValues: foldedViews.map { ($0.name, $0) })
        let (names, services) = try Self.names(&judged, byName)
        var questions: [Question] = []
        try judged.each(Question.kind) { definition, judged in
            let reads = (definition.body["features"]?.array ?? []).compactMap { $0["view"]?.string }
            if judged.isAnyMistaken(reads) { return }
            let question = try Question(definition, views: foldedByName)
            try Self.refuseVanished(question.references(in: foldedByName), byName, definition)
            try check(question.topic, question.expressions, definition, judged)
            if let truth = try Truth(definition) { try check(truth.topic, truth.expressions, definition, judged) }
            questions.append(question)
        }
        try Self.refuse(judged.mistakes)
        (self.topics, self.entities, self.views, self.foldedViews) = (topics, entities, views, foldedViews)
        (self.services, self.questions, self.definitions) = (services, questions, definitions)
        derived = names.derived.values.sorted { $0.name < $1.name }
        _ = try models()
        _ = try monitors()
        _ = try policies()
    }

    /// Derived views, and services over all views.
    private static func names(
        _ judged: inout JudgedDefinitions, _ views: [String: FeatureView]
    ) throws -> (names: FeatureNames, services: [FeatureService]) {
        var names = FeatureNames(views: views)
        try judged.each(DerivedView.kind) { definition, _ in
            names.derived[definition.name] = try DerivedView(definition)
        }
        try judged.each(DerivedView.kind) { definition, judged in
            if judged.isAnyMistaken(names.derived[definition.name]?.references.map(\.view) ?? []) { return }
            try names.check(definition)
        }
        var services: [FeatureService] = []
        try judged.each(FeatureService.kind) { definition, judged in
            let reads = (definition.body["features"]?.array ?? []).compactMap { $0.string?.split(separator: ":").first }
            if judged.isAnyMistaken(reads.map(String.init)) { return }
            services.append(try FeatureService(definition, names: names))
        }
        return (names, services)
    }

    private static func refuseUnknown(_ definition: Definition) throws {
        guard !kinds.contains(definition.kind) else { return }
        throw CatalogError(
            "unknown-kind",
            "\(definition.place): there is no kind '\(definition.kind)'; known: \(kinds.joined(separator: ", "))")
    }

    /// Views as they were; one that is as it was is the same.
    private static func views(
        _ old: [Definition], _ definitions: [Definition], _ byName: [String: FeatureView]
    ) throws -> [FeatureView] {
        let known = Dictionary(
            definitions.filter { $0.kind == FeatureView.kind }.map { ($0.name, $0.body) }, uniquingKeysWith: { $1 })
        return try old.map { view in
            if known[view.name] == view.body, let same = byName[view.name] { return same }
            return try FeatureView(view)
        }
    }

    /// What a question reads, and so the models that answer it, cannot vanish from a view that changes.
    private static func refuseVanished(
        _ references: [FeatureReference], _ views: [String: FeatureView], _ definition: Definition
    ) throws {
        for read in references where views[read.view].map({ $0.index(of: read.feature) == nil }) ?? false {
            throw CatalogError(
                "feature-in-use",
                "\(definition.place): \(definition.key) reads '\(read.feature)' of the view '\(read.view)', which no longer has it; what a question and its models read cannot go: keep it, or give the changed view a new name"
            )
        }
    }

    /// A fold that saw what an erasure takes away could not be done again after it (decision 11).
    private static func refusePersonal(
        _ topic: TopicDefinition, _ expressions: [CELProgram], _ definition: Definition
    ) throws {
        for expression in expressions {
            guard let field = topic.personal?.seen(by: expression) else { continue }
            throw CatalogError(
                "personal-field",
                "\(definition.place): \(definition.key): '\(expression.source)' reads '\(field.description)', which '\(topic.name)' declares personal; nothing is folded from sealed fields, so publish what may be used (an age group instead of a birthday) in a field of its own"
            )
        }
    }

    /// Mistakes that one message names.
    private static let mistakeLimit = 10

    /// Goes on behind a mistake, so that one message can name them all.
    private static func each(_ definitions: [Definition], _ compile: (Definition) throws -> Void) throws {
        var mistakes: [(definition: Definition, mistake: CatalogError)] = []
        for definition in definitions {
            do { try compile(definition) } catch let mistake as CatalogError { mistakes.append((definition, mistake)) }
        }
        try refuse(mistakes)
    }

    /// One error of all mistakes, in the order of files and lines.
    private static func refuse(_ mistakes: [(definition: Definition, mistake: CatalogError)]) throws {
        func place(_ definition: Definition) -> (String, Int) {
            guard let colon = definition.place.lastIndex(of: ":") else { return (definition.place, 0) }
            return (String(definition.place[..<colon]), Int(definition.place[colon...].dropFirst()) ?? 0)
        }
        let sorted = mistakes.sorted { place($0.definition) < place($1.definition) }.map(\.mistake)
        guard let first = sorted.first else { return }
        guard sorted.count > 1 else { throw first }
        var lines = sorted.prefix(mistakeLimit).map(\.message)
        if sorted.count > mistakeLimit { lines.append("and \(sorted.count - mistakeLimit) more") }
        throw CatalogError(first.code, "\(sorted.count) mistakes:\n" + lines.joined(separator: "\n"))
    }

    package func truths() throws -> [Truth] { try definitions(Question.kind).compactMap { try Truth($0) } }

    package func models() throws -> [ModelDefinition] {
        try definitions(ModelDefinition.kind).map { definition in
            let model = try ModelDefinition(definition)
            guard questions.contains(where: { $0.name == model.question }) else {
                throw CatalogError("unknown-question", "\(definition.place): there is no question '\(model.question)'")
            }
            return model
        }
    }

    package func monitors() throws -> [MonitorDefinition] {
        let models = try models()
        return try definitions(MonitorDefinition.kind).map { definition in
            try MonitorDefinition(definition) { name throws(CatalogError) in
                guard let model = models.first(where: { $0.name == name }),
                    let question = questions.first(where: { $0.name == model.question })
                else { throw CatalogError("unknown-model", "\(definition.place): there is no model '\(name)'") }
                return question.featureNames
            }
        }
    }

    package func policies() throws -> [PolicyDefinition] {
        let models = Set(try models().map(\.name))
        return try definitions(PolicyDefinition.kind).map { definition in
            let policy = try PolicyDefinition(definition)
            guard models.contains(policy.model) else {
                throw CatalogError("unknown-model", "\(definition.place): there is no model '\(policy.model)'")
            }
            return policy
        }
    }
}

/// Definitions, and what is wrong with those that were looked at. Mistakes of all kinds are told together; what only follows
/// from another is not.
private struct JudgedDefinitions {
    let definitions: [Definition]
    private(set) var mistakes: [(definition: Definition, mistake: CatalogError)] = []

    init(_ definitions: [Definition]) { self.definitions = definitions }

    /// Goes through those of a kind.
    mutating func each(_ kind: String, _ compile: (Definition, JudgedDefinitions) throws -> Void) throws {
        for definition in definitions where definition.kind == kind {
            do { try compile(definition, self) } catch let mistake as CatalogError {
                mistakes.append((definition, mistake))
            }
        }
    }

    func isMistaken(_ kind: String, _ name: String) -> Bool {
        mistakes.contains { $0.definition.kind == kind && $0.definition.name == name }
    }

    func isAnyMistaken(_ views: [String]) -> Bool {
        views.contains { isMistaken(FeatureView.kind, $0) || isMistaken(DerivedView.kind, $0) }
    }
}
