/**
 * The documents between the folders: TypeScript types and JSON schemas have the same keys, shipped documents and real manifests
 * follow their schemas, and the C header declares exactly the interface that schemas/abi.json describes.
 */
import { strict as assert } from 'node:assert';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import type { Type } from 'ts-morph';
import { Project } from 'ts-morph';
import { bindings } from '../codegen/bindings.ts';
import { profileOf, readProfile } from '../codegen/cpu.ts';
import { manifestOf } from '../codegen/emit.ts';
import { fingerprint, skippingFingerprint } from '../codegen/fingerprint.ts';
import { isas } from '../codegen/isa/index.ts';
import { planOf } from '../codegen/plan.ts';
import { keyName, nothing, shippedWisdom } from '../codegen/wisdom.ts';
import abi from '../schemas/abi.json' with { type: 'json' };
import { packageRoot } from '../schemas/files.ts';
import type { SchemaName } from '../schemas/validate.ts';
import { validate } from '../schemas/validate.ts';
import { skip } from './fixtures.ts';
import { demoShape, shippedShapes } from './shapes.ts';
import { some } from './tier.ts';

interface Schema {
  readonly $ref?: string;
  readonly type?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly anyOf?: readonly Schema[];
  readonly $defs?: Readonly<Record<string, Schema>>;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly additionalProperties?: boolean | Schema;
}

const read = (...parts: string[]) => JSON.parse(readFileSync(path.join(packageRoot, 'schemas', ...parts), 'utf8'));
const schemaOf = (name: string): Schema => read(`${name}.schema.json`);
const project = new Project({
  tsConfigFilePath: path.join(packageRoot, 'tsconfig.json'),
  skipAddingFilesFromTsConfig: true,
});

/** The interfaces that a schema describes, by schema name. */
const documents: Readonly<Record<string, { readonly file: string; readonly type: string }>> = {
  model: { file: 'schemas/types.ts', type: 'ModelShape' },
  cpu: { file: 'schemas/types.ts', type: 'CpuProfile' },
  manifest: { file: 'codegen/emit.ts', type: 'Manifest' },
  tuning: { file: 'codegen/wisdom.ts', type: 'Wisdom' },
};

/** What a reference stands for: another schema's name, a path within it or within this document, or both. */
function resolve(ref: string, document: Schema): Schema {
  const [name, pointer = ''] = ref.split('#') as [string, string?];
  const steps = pointer.split('/').slice(1);
  return steps.reduce<unknown>(
    (at, step) => (at as Record<string, unknown>)[step],
    name ? schemaOf(name) : document,
  ) as Schema;
}

/** Holds a TypeScript type against a schema, key by key and kind by kind; `where` is the path for messages. */
function assertSame(type: Type, schema: Schema, where: string, document = schema): void {
  const full = schema.$ref ? resolve(schema.$ref, document) : schema;
  if (full.anyOf) {
    const types = type.getUnionTypes();
    assert.equal(types.length, full.anyOf.length, `${where}: alternatives`);
    full.anyOf.forEach((alternative, i) => {
      assertSame(types[i]!, alternative, `${where}: alternative ${i + 1}`, document);
    });
    return;
  }
  if (full.enum || full.const !== undefined) {
    const allowed = full.enum ?? [full.const];
    const literals = type.isUnion() ? type.getUnionTypes() : [type];
    const values = literals.map((t) => (t.isBoolean() ? 'boolean' : t.getLiteralValue()));
    assert.deepEqual([...values].sort(), [...allowed].sort(), where);
    return;
  }
  if (full.type === 'object' && full.properties) {
    const properties = type.getProperties();
    assert.deepEqual(properties.map((p) => p.getName()).sort(), Object.keys(full.properties).sort(), `${where}: keys`);
    assert.equal(full.additionalProperties, false, `${where}: unknown keys must be refused`);
    const needed = properties.filter((p) => !p.isOptional()).map((p) => p.getName());
    assert.deepEqual([...(full.required ?? [])].sort(), needed.sort(), `${where}: required keys`);
    for (const p of properties)
      assertSame(
        p.getTypeAtLocation(p.getDeclarations()[0]!),
        full.properties[p.getName()]!,
        `${where}.${p.getName()}`,
        document,
      );
    return;
  }
  if (full.type === 'object') {
    const values = type.getStringIndexType();
    assert.ok(values && typeof full.additionalProperties === 'object', `${where}: a map`);
    assertSame(values, full.additionalProperties, `${where}.*`, document);
    return;
  }
  if (full.type === 'array') {
    assert.ok(type.isArray() || type.isReadonlyArray(), `${where}: an array`);
    assertSame(type.getArrayElementTypeOrThrow(), full.items!, `${where}[]`, document);
    return;
  }
  const kinds: Record<string, boolean> = {
    string: type.isString(),
    integer: type.isNumber(),
    number: type.isNumber(),
    boolean: type.isBoolean(),
  };
  assert.ok(kinds[full.type!], `${where}: ${type.getText()} is not ${full.type}`);
}

describe('schemas', () => {
  it('every schema has a type', () => {
    const found = readdirSync(path.join(packageRoot, 'schemas')).flatMap(
      (f) => /^(.*)\.schema\.json$/.exec(f)?.[1] ?? [],
    );
    assert.deepEqual(found.sort(), Object.keys(documents).sort());
  });

  for (const [name, { file, type }] of Object.entries(documents))
    it(`${type} and ${name}.schema.json have the same keys and kinds`, () => {
      const source = project.addSourceFileAtPath(path.join(packageRoot, file));
      assertSame(source.getInterfaceOrThrow(type).getType(), schemaOf(name), type);
    });

  it('shipped models follow their schema and are named as their files', () => {
    const files = readdirSync(path.join(packageRoot, 'schemas', 'models'));
    assert.ok(files.length > 0);
    for (const file of files) {
      const shape = read('models', file);
      assert.equal(validate('model', shape), undefined, file);
      assert.equal(`${shape.name}.json`, file);
      assert.equal(shape.heads % shape.kvHeads, 0, file);
      assert.ok(!shape.tiedEmbedding || shape.headType === shape.embeddingType, file);
    }
    assert.equal(validate('model', demoShape()), undefined);
  });

  it('CPU profiles, shipped and assumed, follow their schema, and shipped ones are named as their files', () => {
    const files = readdirSync(path.join(packageRoot, 'schemas', 'cpus'));
    for (const file of files) {
      const cpu = readProfile(path.join(packageRoot, 'schemas', 'cpus', file));
      assert.equal(`${cpu.name}.json`, file);
    }
    for (const target of ['native', ...Object.keys(isas)])
      assert.equal(validate('cpu', JSON.parse(JSON.stringify(profileOf(target)))), undefined, target);
  });

  it('shipped wisdom counts: it was measured with the kernels that are generated', function () {
    const folder = path.join(packageRoot, 'schemas', 'wisdom');
    if (!existsSync(folder)) return skip(this, 'no wisdom is shipped');
    const profiles = readdirSync(path.join(packageRoot, 'schemas', 'cpus')).map((file) =>
      readProfile(path.join(packageRoot, 'schemas', 'cpus', file)),
    );
    for (const file of readdirSync(folder)) assert.equal(validate('tuning', read('wisdom', file)), undefined, file);
    const { entries, tokens, thresholds } = shippedWisdom();
    for (const { key } of [...entries, ...tokens, ...thresholds]) {
      const own = profiles.find(({ id }) => JSON.stringify(id) === JSON.stringify(key.cpu));
      assert.ok(own, `no shipped profile is of ${keyName(key.cpu)}`);
      const profile = profiles.find(({ features }) => `${features}` === `${key.features}`);
      assert.ok(profile, `no shipped profile has the features ${key.features.join(' ')}`);
      const cpu = { ...profile, prefetch: own.prefetch, cache: key.caches };
      assert.equal(
        key.generator,
        ('packing' in key ? skippingFingerprint : fingerprint)(cpu, key.phase),
        `${key.phase} on ${profile.name} is stale: docs/measurements.md says how shipped wisdom is made anew`,
      );
    }
  });

  it('manifests of real plans follow their schema', () => {
    for (const shape of [demoShape(), ...some(shippedShapes())])
      for (const isa of Object.keys(isas)) {
        const manifest = manifestOf(planOf(shape, profileOf(isa)));
        // As it travels: through JSON.
        assert.equal(validate('manifest', JSON.parse(JSON.stringify(manifest))), undefined, `${shape.name} on ${isa}`);
      }
  });

  const valid: Record<SchemaName, () => Record<string, unknown>> = {
    model: () => ({ ...demoShape() }),
    cpu: () => ({ ...profileOf('scalar') }),
    tuning: () => ({ ...nothing }),
    manifest: () => ({ ...manifestOf(planOf(demoShape(), profileOf('scalar'))) }),
  };
  for (const name of Object.keys(valid) as SchemaName[])
    it(`${name}.schema.json refuses a missing key, an unknown key and a value of another kind, naming it`, () => {
      assert.equal(validate(name, valid[name]()), undefined);
      for (const key of Object.keys(valid[name]())) {
        const { [key]: _, ...rest } = valid[name]();
        assert.match(validate(name, rest)!, new RegExp(`'${key}'`));
        assert.match(validate(name, { ...rest, [key]: null })!, new RegExp(`^${key} `));
      }
      assert.match(validate(name, { ...valid[name](), surplus: 1 })!, /surplus/);
    });
});

describe('abi.json', () => {
  /** C spelling of each type, as an argument and as a result. */
  const spellings: Record<string, string> = {
    int32: 'int32_t',
    double: 'double',
    string: 'const char *',
    int32s: 'const int32_t *',
    ids: 'int32_t *',
    floats: 'float *',
  };
  const declared = (name: string, type: string) =>
    `${spellings[type]}${spellings[type]!.endsWith('*') ? '' : ' '}${name}`;
  const header = readFileSync(path.join(packageRoot, 'templates', 'bitnet.h'), 'utf8')
    .replaceAll(/\/\*[\s\S]*?\*\//g, '')
    .replaceAll(/^#.*$/gm, '')
    .replaceAll(/\s+/g, ' ');

  it('describes exactly the functions that templates/bitnet.h declares, argument by argument', () => {
    const actual = [...header.matchAll(/BN_API ([^;]*);/g)].map((m) => m[1]!);
    const expected = abi.functions.map((f) => {
      const args = f.arguments.map((a) => declared(a.name, a.type)).join(', ') || 'void';
      return `${declared(f.name, f.result)}(${args})`;
    });
    assert.deepEqual(actual.sort(), expected.sort());
  });

  it('has the version of the header', () => {
    assert.equal(Number(/BN_ABI = (\d+)/.exec(header)?.[1]), abi.version);
  });

  it('gives the bindings of a library, which type-check on their own', () => {
    const memory = new Project({ useInMemoryFileSystem: true, compilerOptions: { strict: true, target: 9 } });
    const file = memory.createSourceFile('bindings.ts', bindings(planOf(demoShape(), profileOf('scalar'))));
    assert.deepEqual(
      file.getPreEmitDiagnostics().map((d) => d.getMessageText()),
      [],
    );
    const methods = file.getInterfaceOrThrow('BitnetLibrary').getMethods();
    assert.deepEqual(
      methods.map((m) => [`bn_${m.getName()}`, m.getParameters().length]),
      abi.functions.map((f) => [f.name, f.arguments.length]),
    );
  });

  it('documents every function', () => {
    for (const f of abi.functions) assert.match(f.doc, /^[A-Z].*\.$/, f.name);
  });
});
