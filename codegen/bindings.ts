/**
 * Typed TypeScript for a generated library's C interface, built with ts-morph from the one description of that interface in
 * schemas/abi.json: a file that users who load the library themselves can import.
 */
import { Project, VariableDeclarationKind } from 'ts-morph';
import abi from '../schemas/abi.json' with { type: 'json' };
import type { Plan } from './plan.ts';

const tsTypes: Record<string, string> = {
  int32: 'number',
  double: 'number',
  string: 'string',
  int32s: 'Int32Array',
  ids: 'Int32Array',
  floats: 'Float32Array | null',
};

/** The text of bindings.ts for a plan. */
export function bindings(plan: Plan): string {
  const project = new Project({
    useInMemoryFileSystem: true,
    manipulationSettings: { indentationText: '  ' as never, quoteKind: "'" as never },
  });
  const file = project.createSourceFile('bindings.ts');
  file.addStatements(
    `/** C interface of the library for ${plan.shape.name} on ${plan.cpu.name}. Generated from schemas/abi.json. */`,
  );
  file.addInterface({
    name: 'BitnetLibrary',
    isExported: true,
    docs: ['One generated library. Calls that fail return a negative number; `error()` tells why.'],
    methods: abi.functions.map((f) => ({
      name: f.name.replace(/^bn_/, ''),
      docs: [f.doc],
      parameters: f.arguments.map((a) => ({ name: a.name, type: tsTypes[a.type]! })),
      returnType: tsTypes[f.result]!,
    })),
  });
  const constant = (name: string, initializer: string, doc: string) =>
    file.addVariableStatement({
      isExported: true,
      declarationKind: VariableDeclarationKind.Const,
      docs: [doc],
      declarations: [{ name, initializer }],
    });
  constant('vocabulary', String(plan.shape.vocabulary), 'Logits of one token.');
  constant('abiVersion', String(abi.version), 'What `abi()` must return.');
  constant(
    'functions',
    `${JSON.stringify(Object.fromEntries(abi.functions.map((f) => [f.name, [f.result, ...f.arguments.map((a) => a.type)]])), null, 2)} as const`,
    'Result and argument types of each C function.',
  );
  file.formatText({ indentSize: 2 });
  return file.getFullText();
}
