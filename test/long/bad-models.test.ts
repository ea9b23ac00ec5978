/**
 * Model files that cannot be used, through the command-line programs: one clear line on stderr that names the value and what to
 * do, and nothing left behind. The rules of the file formats have tests of their own (formats-*.test.ts).
 */
import { strict as assert } from 'node:assert';
import { cpSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { openModel } from '../../runtime/formats/open.ts';
import { shape, useModels } from '../cli-models.ts';
import { type ProgramName, snapshot, useCli } from '../run-cli.ts';

describe('bad model files', () => {
  const cli = useCli();
  const models = useModels(cli);
  const once = ['--tokens', '1', '-n', '1'];

  before(async () => {
    // Compiles once for all tests below; both formats have the same shape and name, hence the same build.
    await cli.ok('run', [models.gguf, ...once]);
    await cli.ok('run', [models.folder, ...once]);
    assert.equal(readdirSync(cli.cache('builds')).length, 1);
  });

  /** A copy of the Hugging Face folder with a changed safetensors header. */
  function changedFolder(name: string, change: (header: Record<string, { dtype: string; shape: number[] }>) => void) {
    const copy = cli.path(name);
    cpSync(models.folder, copy, { recursive: true });
    const file = path.join(copy, 'model.safetensors');
    const bytes = readFileSync(file);
    const length = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + length));
    change(header);
    const text = Buffer.from(JSON.stringify(header));
    const start = Buffer.alloc(8);
    start.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(file, Buffer.concat([start, text, bytes.subarray(8 + length)]));
    return copy;
  }

  /** A copy of the Hugging Face folder with a changed config.json. */
  function changedConfig(name: string, change: Record<string, unknown>): string {
    const copy = cli.path(name);
    cpSync(models.folder, copy, { recursive: true });
    const file = path.join(copy, 'config.json');
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...change }));
    return copy;
  }

  /** Overwrites the first occurrence of a text by one of the same length. */
  function overwrite(bytes: Buffer, from: string, to: string): void {
    const at = bytes.indexOf(from);
    assert.ok(at >= 0 && Buffer.byteLength(from) === Buffer.byteLength(to));
    bytes.write(to, at);
  }

  it('infinity in a norm, and nothing stays in the cache', async () => {
    const { offset, name } = openModel(models.gguf).tensors.get('blk.0.ffn_norm')!;
    const file = models.changedGguf('infinite.gguf', (bytes) => bytes.writeUInt32LE(0x7f800000, offset + 4 * 7));
    const before = readdirSync(cli.cache('weights'));
    const says = new RegExp(
      `infinite\\.gguf: tensor '${name.replaceAll('.', '\\.')}' cannot be packed: element 7 is infinity: .*damaged`,
    );
    await cli.refuses('run', [file, ...once], 1, [says]);
    assert.deepEqual(readdirSync(cli.cache('weights')), before);
  });

  it('a file that is not there', async () => {
    const missing = (program: ProgramName) =>
      cli.refuses(program, [cli.path('nothing.gguf')], 1, [/nothing\.gguf/, /give a /], { input: 'x' });
    await Promise.all([missing('run'), missing('gen'), missing('tune')]);
  });

  it('a truncated GGUF file: in the data, in the header, empty', async () => {
    const cut = async (bytes: number, says: RegExp) => {
      const file = models.changedGguf(`cut-${bytes}.gguf`, () => {});
      truncateSync(file, bytes);
      await cli.refuses('run', [file, ...once], 1, [/cut-\d+\.gguf/, says]);
    };
    await Promise.all([
      cut(readFileSync(models.gguf).length - 1000, /past the end of the file.*download it again/),
      cut(200, /184 bytes .*damaged or truncated/),
      cut(0, /not a GGUF file/),
    ]);
  });

  it('a truncated safetensors file: in the data, in the header', async () => {
    const cut = async (bytes: number) => {
      const copy = changedFolder(`cut-${bytes}`, () => {});
      truncateSync(path.join(copy, 'model.safetensors'), bytes);
      await cli.refuses('run', [copy, ...once], 1, [
        /model\.safetensors/,
        /past the end of the file.*download it again/,
      ]);
    };
    await Promise.all([cut(300000), cut(100)]);
  });

  it('headers that lie about sizes', async () => {
    const counts = models.changedGguf('counts.gguf', (bytes) => bytes.writeBigUInt64LE(2n ** 63n, 8));
    const longKey = models.changedGguf('string.gguf', (bytes) => bytes.writeBigUInt64LE(2n ** 40n, 24));
    const copy = changedFolder('lying', (header) => {
      const offsets = header['model.norm.weight'] as unknown as { data_offsets: [number, number] };
      offsets.data_offsets = [2 ** 50, 2 ** 50 + 512];
    });
    const length = changedFolder('length', () => {});
    const file = path.join(length, 'model.safetensors');
    const bytes = readFileSync(file);
    bytes.writeBigUInt64LE(2n ** 63n);
    writeFileSync(file, bytes);
    await Promise.all([
      cli.refuses('run', [counts, ...once], 1, [/counts\.gguf/, /9223372036854775808/]),
      cli.refuses('run', [longKey, ...once], 1, [/string\.gguf/, /1099511627776/]),
      cli.refuses('run', [copy, ...once], 1, [/model\.safetensors/, /'model\.norm\.weight'/, /past the end/]),
      cli.refuses('run', [length, ...once], 1, [/model\.safetensors/, /9223372036854775808/]),
    ]);
  });

  it('a wrong dtype', () => {
    const copy = changedFolder('dtype', (header) => {
      header['model.layers.0.self_attn.q_proj.weight']!.dtype = 'I8';
    });
    return cli.refuses('run', [copy, ...once], 1, [/q_proj\.weight'/, /I8/, /supported are U8/]);
  });

  it('a missing tensor', () => {
    const copy = changedFolder('missing', (header) => delete header['model.layers.0.mlp.up_proj.weight']);
    return cli.refuses('run', [copy, ...once], 1, [/up_proj|ffn_up/, /missing|no packed matrix/]);
  });

  it('weights that do not fit the configuration', () =>
    cli.refuses('run', [changedConfig('mismatch', { intermediate_size: 1024 }), ...once], 1, [
      /512/,
      /1024/,
      /together/,
    ]));

  it('an unknown architecture', async () => {
    const copy = changedConfig('mamba', { architectures: ['MambaForCausalLM'] });
    const file = models.changedGguf('mamba.gguf', (bytes) => overwrite(bytes, 'bitnet-b1.58', 'mamba-b1.58x'));
    await Promise.all([
      cli.refuses('run', [copy, ...once], 1, [/"MambaForCausalLM"/, /known are .*BitNetForCausalLM/]),
      cli.refuses('run', [file, ...once], 1, [/mamba-b1\.58x/, /known|supported/, /bitnet-b1\.58/]),
    ]);
  });

  it('TL1 and TL2 files: why they cannot be decoded, and what to use', async () => {
    const typed = (type: number, name: string) => {
      const file = models.changedGguf(`${name}.gguf`, (bytes) => {
        const tensor = 'blk.0.attn_q.weight';
        // name, u32 dimensions, two u64 sizes, u32 type
        bytes.writeUInt32LE(type, bytes.indexOf(tensor) + tensor.length + 4 + 16);
      });
      const says = [new RegExp(`type ${type} \\(${name}\\)`), /cannot be decoded/, /use an I2_S, TQ1_0 or TQ2_0/];
      return cli.refuses('run', [file, ...once], 1, says);
    };
    await Promise.all([typed(38, 'TL1'), typed(39, 'TL2')]);
  });

  it('a shape file with a missing, a wrong and an unknown field', async () => {
    const generate = (name: string, text: string, says: RegExp) => {
      const file = cli.path(`${name}.json`);
      writeFileSync(file, text);
      return cli.refuses('gen', [file, '--out', cli.path('out')], 1, [new RegExp(`${name}\\.json`), says]);
    };
    const changed = (change: Record<string, unknown>) => JSON.stringify({ ...shape, ...change });
    await Promise.all([
      generate('missing', changed({ hidden: undefined }), /hidden/),
      generate('wrong', changed({ heads: 'many' }), /heads must be integer/),
      generate('unknown', changed({ experts: 8 }), /experts/),
      generate('uneven', changed({ heads: 3 }), /3 heads are not a multiple of 2/),
      generate('broken', '{', /not JSON/),
    ]);
    assert.equal(snapshot(cli.path('out')), 'nothing');
  });
});
