// Draws one dashboard: Grafana's own components, fed with the panels' JSON and with what Prometheus answered.
// The answers are in the page (window.dashboard), so that a picture depends on nothing but its file.
import { createRoot } from 'react-dom/client';
import { firstValueFrom } from 'rxjs';
import {
  applyFieldOverrides, createTheme, dateTime, displayNameOverrideProcessor, FieldType,
  getDisplayValueAlignmentFactors, getFieldDisplayValues,
  identityOverrideProcessor, numberOverrideProcessor, standardEditorsRegistry, standardFieldConfigEditorRegistry,
  standardTransformers, standardTransformersRegistry, stringOverrideProcessor, ThemeContext,
  thresholdsOverrideProcessor, toDataFrame, transformDataFrame, unitOverrideProcessor, valueMappingsOverrideProcessor,
  type DataFrame, type FieldConfigPropertyItem, type FieldDisplay,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, Table, TimeSeries, VizRepeater } from '@grafana/ui';

type Json = any;
const HEAD = 44, CELL = 38, GAP = 8, WIDTH = 1440, COLUMN = WIDTH / 24;
const board: Json = (window as Json).dashboard;
const theme = createTheme({ colors: { mode: 'dark' } });
const range: Json = {
  from: dateTime(board.from * 1000), to: dateTime(board.to * 1000), raw: { from: 'now-6h', to: 'now' },
};

// What Grafana registers when it starts: how each property of a field's configuration is read.
const STANDARD: Record<string, Json> = {
  unit: unitOverrideProcessor, min: numberOverrideProcessor, max: numberOverrideProcessor,
  decimals: numberOverrideProcessor, displayName: displayNameOverrideProcessor, noValue: stringOverrideProcessor,
  thresholds: thresholdsOverrideProcessor, mappings: valueMappingsOverrideProcessor, color: identityOverrideProcessor,
};
const CUSTOM = [
  'drawStyle', 'lineWidth', 'lineStyle', 'fillOpacity', 'showPoints', 'spanNulls', 'stacking', 'lineInterpolation',
  'axisPlacement', 'axisSoftMax', 'scaleDistribution', 'hideFrom',
];
const item = (id: string, path: string, process: Json, isCustom: boolean) => ({
  id, path, name: id, isCustom, process, shouldApply: () => true, settings: {}, override: () => null, editor: () => null,
}) as unknown as FieldConfigPropertyItem;
standardEditorsRegistry.setInit(() => []);
standardFieldConfigEditorRegistry.setInit(() => [
  ...Object.entries(STANDARD).map(([id, process]) => item(id, id, process, false)),
  ...CUSTOM.map((name) => item(`custom.${name}`, name, identityOverrideProcessor, true)),
]);
// Some transformers are there under a second, older name.
const transformers = new Map<string, Json>(Object.values(standardTransformers).map((each: Json) => [each.id, each]));
standardTransformersRegistry.setInit(() => [...transformers.values()].map((each) => ({
  id: each.id, name: each.name, transformation: () => Promise.resolve(each), editor: () => null,
})) as Json);

const named = (legend: string, labels: Json) => legend.replace(/{{\s*(\w+)\s*}}/g, (_, label) => labels[label] ?? '').trim();

function seriesFrames(query: Json): DataFrame[] {
  const points = (series: Json): Json[] => series.values ?? [series.value];
  return query.result.map((series: Json) => toDataFrame({
    refId: query.refId,
    fields: [
      { name: 'Time', type: FieldType.time, config: { interval: board.step * 1000 },
        values: points(series).map(([at]) => at * 1000) },
      { name: 'Value', type: FieldType.number, labels: series.metric,
        config: { displayNameFromDS: named(query.legend, series.metric) || 'Value' },
        values: points(series).map(([, value]) => Number(value)) },
    ],
  }));
}

function tableFrame(query: Json): DataFrame {
  const labels = [...new Set<string>(query.result.flatMap((row: Json) => Object.keys(row.metric)))].sort();
  return toDataFrame({
    refId: query.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: query.result.map((row: Json) => row.value[0] * 1000) },
      ...labels.map((label) => ({
        name: label, type: FieldType.string, values: query.result.map((row: Json) => row.metric[label] ?? ''),
      })),
      { name: `Value #${query.refId}`, type: FieldType.number,
        values: query.result.map((row: Json) => Number(row.value[1])) },
    ],
  });
}

async function frames(panel: Json): Promise<DataFrame[]> {
  const read = panel.queries.flatMap((query: Json) => (query.table ? [tableFrame(query)] : seriesFrames(query)));
  const context: Json = { interpolate: (text: string) => text };
  const shaped = await firstValueFrom(transformDataFrame(panel.transformations ?? [], read, context));
  let index = 0;
  shaped.forEach((frame) => frame.fields.forEach((field) => {
    if (field.type === FieldType.number) {
      field.state = { ...field.state, seriesIndex: index++ };
    }
  }));
  const defaults: Json = { custom: {}, ...panel.fieldConfig.defaults };
  if (panel.type === 'timeseries') {
    defaults.custom = { drawStyle: 'line', axisPlacement: 'auto', scaleDistribution: { type: 'linear' }, ...defaults.custom };
  }
  return applyFieldOverrides({
    data: shaped, theme, timeZone: 'utc', replaceVariables: (text: string) => text,
    fieldConfig: { defaults, overrides: panel.fieldConfig.overrides ?? [] },
    fieldConfigRegistry: standardFieldConfigEditorRegistry as Json,
  });
}

function displays(panel: Json, data: DataFrame[]): FieldDisplay[] {
  const fieldConfig = { defaults: panel.fieldConfig.defaults, overrides: [] };
  return getFieldDisplayValues({
    data, fieldConfig, theme, timeZone: 'utc', replaceVariables: (text: string) => text,
    reduceOptions: panel.options.reduceOptions,
  } as Json);
}

function Empty({ panel, width, height }: Json) {
  const text = panel.fieldConfig.defaults.noValue ?? 'No data';
  return <div style={{ width, height, display: 'flex', alignItems: 'center', justifyContent: 'center', fontSize: 18,
    color: theme.colors.text.secondary }}>{text}</div>;
}

function Body({ panel, data, width, height }: Json) {
  if (!data.some((frame: DataFrame) => frame.length > 0)) {
    return <Empty panel={panel} width={width} height={height} />;
  }
  if (panel.type === 'timeseries') {
    return <TimeSeries frames={data} timeRange={range} timeZone="utc" width={width} height={height} theme={theme}
      legend={panel.options.legend} options={panel.options} structureRev={1}>{() => null as Json}</TimeSeries>;
  }
  if (panel.type === 'table') {
    const [sort] = panel.options.sortBy;
    return <Table data={data[0]} width={width} height={height} timeRange={range}
      initialSortBy={[{ displayName: sort.displayName, desc: sort.desc }]} />;
  }
  const options = panel.options;
  const gauge = panel.type === 'bargauge';
  return <VizRepeater source={data} getValues={() => displays(panel, data)} width={width} height={height} itemSpacing={8}
    minVizHeight={gauge ? 16 : undefined} orientation={(gauge ? 'horizontal' : 'auto') as Json}
    getAlignmentFactors={getDisplayValueAlignmentFactors}
    renderValue={({ value, alignmentFactors, width, height }: Json) => gauge
      ? <BarGauge value={value.display} display={value.view?.getFieldDisplayProcessor(value.colIndex)} field={value.field}
          width={width} height={height} orientation={'horizontal' as Json} theme={theme} displayMode={options.displayMode}
          showUnfilled={options.showUnfilled} valueDisplayMode={options.valueMode} text={options.text}
          alignmentFactors={alignmentFactors} />
      : <BigValue value={value.display} width={width} height={height} theme={theme} colorMode={options.colorMode}
          graphMode={options.graphMode} justifyMode={options.justifyMode} textMode={options.textMode} />} />;
}

function Panel({ panel, data }: Json) {
  const { x, y, w, h } = panel.gridPos;
  const width = w * COLUMN - GAP, height = h * CELL - GAP;
  const place: Json = { position: 'absolute', left: x * COLUMN + GAP / 2, top: HEAD + y * CELL + GAP / 2, width, height };
  if (panel.type === 'row') {
    return <h2 style={{ ...place, fontSize: 18, margin: 0, lineHeight: `${height}px`, paddingLeft: 4 }}>{panel.title}</h2>;
  }
  return <div style={place}><PanelChrome title={panel.title} width={width} height={height} padding={panel.type === 'table' ? 'none' : 'md'}>
    {(width: number, height: number) => <Body panel={panel} data={data} width={width} height={height} />}
  </PanelChrome></div>;
}

function Head() {
  const chosen = Object.entries(board.values).map(([name, value]) => `${name} ${value}`).join('   ');
  return <div style={{ height: HEAD, lineHeight: `${HEAD}px`, paddingLeft: 8, whiteSpace: 'pre' }}>
    <span style={{ fontSize: 20, fontWeight: 500 }}>{board.title}</span>
    <span style={{ color: theme.colors.text.secondary, paddingLeft: 24 }}>{chosen}</span>
  </div>;
}

async function main() {
  const drawn = await Promise.all(board.panels.map(async (panel: Json) => ({
    panel, data: panel.type === 'row' ? [] : await frames(panel),
  })));
  createRoot(document.getElementById('root')!).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles isExtensionSidebarOpen={false} /><Head />
      {drawn.map((each, index) => <Panel key={index} {...each} />)}
    </ThemeContext.Provider>,
  );
}
main().catch((error) => { document.body.innerText = `failed: ${error.stack}`; });
