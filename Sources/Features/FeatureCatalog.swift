import Base

/// Everything that can be asked for by name: views, entities and services that are in force, with their versions.
package struct FeatureCatalog: Sendable {
    package let views: [String: FeatureView]
    package let derived: [String: DerivedView]
    package let entities: [String: Entity]
    package let services: [String: FeatureService]
    /// Versions of the definitions by `KIND/NAME`.
    private let versions: [String: Int64]

    package init(
        views: [FeatureView], derived: [DerivedView] = [], entities: [Entity], services: [FeatureService],
        versions: [String: Int64]
    ) {
        self.views = Dictionary(views.map { ($0.name, $0) }) { $1 }
        self.derived = Dictionary(derived.map { ($0.name, $0) }) { $1 }
        self.entities = Dictionary(entities.map { ($0.name, $0) }) { $1 }
        self.services = Dictionary(services.map { ($0.name, $0) }) { $1 }
        self.versions = versions
    }

    package var names: FeatureNames { FeatureNames(views: views, derived: derived) }

    /// The name that a view's keys are given under.
    package func keyName(of view: FeatureView) -> String {
        view.entity.map { entities[$0]?.joinKey ?? $0 } ?? view.keyName ?? "key"
    }

    package func version(of view: FeatureView) -> Int64 { versions["\(FeatureView.kind)/\(view.name)"] ?? 1 }
    package func version(of view: DerivedView) -> Int64 { versions["\(DerivedView.kind)/\(view.name)"] ?? 1 }
    package func version(of service: FeatureService) -> Int64 {
        versions["\(FeatureService.kind)/\(service.name)"] ?? 1
    }

    package func plan(service name: String?, features: [String]) throws(FeaturesError) -> FeaturePlan {
        var references: [FeatureReference] = []
        var serviceVersion: Int64?
        if let name {
            guard let service = services[name] else {
                let known = services.keys.sorted().joined(separator: ", ")
                throw FeaturesError(
                    "unknown-service",
                    "there is no feature service '\(name)'; there are \(known.isEmpty ? "none" : known)")
            }
            references = service.features
            serviceVersion = versions["\(FeatureService.kind)/\(name)"] ?? 1
        }
        for text in features {
            references += try FeatureReference.read(text, names)
            guard references.count <= Limits.onlineFeatures else {
                throw FeaturesError("too-many-features", "\(Limits.onlineFeatures) features may be asked for at once")
            }
        }
        guard !references.isEmpty else {
            throw FeaturesError("no-features", "neither 'features' nor 'feature_service' names any feature")
        }
        var seen: Set<FeatureReference> = []
        if let repeated = references.first(where: { !seen.insert($0).inserted }) {
            throw FeaturesError("name-collision", "'\(repeated.text)' is asked for twice")
        }
        var builder = FeaturePlanBuilder(catalog: self)
        return try builder.plan(references, serviceVersion: serviceVersion)
    }
}

/// Resolves what is asked for into what is read of views and what is worked out of that.
private struct FeaturePlanBuilder {
    let catalog: FeatureCatalog
    private var columns: [FeatureReference] = []
    private var reads: [FeaturePlan.Read] = []
    private var steps: [FeaturePlan.Step] = []
    private var known: [FeatureReference: FeaturePlan.Step.Source] = [:]
    private var versions: [(view: String, version: Int64)] = []

    init(catalog: FeatureCatalog) { self.catalog = catalog }

    mutating func plan(
        _ references: [FeatureReference], serviceVersion: Int64?
    ) throws(FeaturesError) -> FeaturePlan {
        var sources: [FeaturePlan.Step.Source] = []
        for reference in references { sources.append(try source(reference)) }
        let places = sources.map { source in
            switch source {
            case .column(let column): column
            case .step(let step): columns.count + step
            case .request: 0
            }
        }
        return FeaturePlan(
            references: references, columns: columns, reads: reads, steps: steps, places: places, versions: versions,
            serviceVersion: serviceVersion)
    }

    private mutating func source(_ reference: FeatureReference) throws(FeaturesError) -> FeaturePlan.Step.Source {
        if let found = known[reference] { return found }
        guard columns.count + steps.count < Limits.onlineFeatures else {
            throw FeaturesError(
                "too-many-features",
                "\(Limits.onlineFeatures) features may be read at once, with what derived ones are worked out of")
        }
        let found: FeaturePlan.Step.Source
        if let view = catalog.derived[reference.view],
            let feature = view.features.first(where: { $0.name == reference.feature })
        {
            use(view.name, catalog.version(of: view))
            var sources: [FeaturePlan.Step.Source] = []
            for input in feature.inputs {
                switch input {
                case .request(let name): sources.append(.request(name))
                case .feature(let other): sources.append(try source(other))
                }
            }
            steps.append(FeaturePlan.Step(reference: reference, program: feature.program, sources: sources))
            found = .step(steps.count - 1)
        } else {
            found = .column(try column(reference))
        }
        known[reference] = found
        return found
    }

    private mutating func column(_ reference: FeatureReference) throws(FeaturesError) -> Int {
        guard let view = catalog.views[reference.view], let feature = view.index(of: reference.feature) else {
            // Services are checked against the newest versions; one that is served until that has caught up may lack it.
            throw FeaturesError(
                "backfilling",
                "'\(reference.text)' is of a version of its view that has not caught up with the log yet; ask again",
                fault: .world, retriable: true)
        }
        columns.append(reference)
        if let at = reads.firstIndex(where: { $0.view === view }) {
            reads[at].features.append((feature, columns.count - 1))
        } else {
            reads.append(
                FeaturePlan.Read(
                    view: view, keyName: catalog.keyName(of: view), features: [(feature, columns.count - 1)]))
            use(view.name, catalog.version(of: view))
        }
        return columns.count - 1
    }

    private mutating func use(_ view: String, _ version: Int64) {
        if !versions.contains(where: { $0.view == view }) { versions.append((view, version)) }
    }
}
